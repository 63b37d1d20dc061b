crate::cases!(ctr: []);
