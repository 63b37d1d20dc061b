use super::arch::{ARM, X32_BIT, X86, X86_64, x86_64};
use super::*;

fn run(p: &Program, call: &Call) -> u32 {
    p.run(call)
}

fn parse(json: serde_json::Value) -> Program {
    compile(&serde_json::from_value(json).unwrap()).unwrap()
}

fn native(p: &Program, name: &str, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(
        p,
        &Call {
            arch: X86_64.audit,
            number: x86_64(name).unwrap(),
            args: all,
        },
    )
}

#[test]
fn every_operator_on_both_halves_of_an_argument() {
    const BIG: u64 = 0x1_0000_0005;
    let cases = [
        (
            "SCMP_CMP_EQ",
            [
                (BIG, true),
                (5, false),
                (BIG + 1, false),
                (0x2_0000_0005, false),
            ],
        ),
        (
            "SCMP_CMP_NE",
            [
                (BIG, false),
                (5, true),
                (BIG + 1, true),
                (0x2_0000_0005, true),
            ],
        ),
        (
            "SCMP_CMP_GT",
            [
                (BIG, false),
                (u64::from(u32::MAX), false),
                (BIG + 1, true),
                (0x2_0000_0000, true),
            ],
        ),
        (
            "SCMP_CMP_GE",
            [
                (BIG, true),
                (BIG - 1, false),
                (BIG + 1, true),
                (0x2_0000_0000, true),
            ],
        ),
        (
            "SCMP_CMP_LT",
            [
                (BIG, false),
                (BIG - 1, true),
                (u64::from(u32::MAX), true),
                (0x2_0000_0000, false),
            ],
        ),
        (
            "SCMP_CMP_LE",
            [
                (BIG, true),
                (BIG + 1, false),
                (u64::from(u32::MAX), true),
                (0x2_0000_0000, false),
            ],
        ),
    ];
    for (op, expected) in cases {
        let p = parse(
            serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": BIG, "op": op}]}]}),
        );
        for (value, allowed) in expected {
            let want = if allowed {
                RET_ALLOW
            } else {
                RET_ERRNO | libc::EPERM as u32
            };
            assert_eq!(native(&p, "kill", &[0, value]), want, "{op} {value:#x}");
        }
    }
}

#[test]
fn masked_equality_as_the_default_profile_uses_it() {
    let p = parse(
        serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 2_114_060_288u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}),
    );
    assert_eq!(native(&p, "clone", &[0x0120_0011]), RET_ALLOW);
    assert_eq!(
        native(&p, "clone", &[0x1000_0000]),
        RET_ERRNO | 1,
        "CLONE_NEWUSER"
    );
    assert_eq!(native(&p, "clone3", &[]), RET_ERRNO | 38);
}

#[test]
fn masks_in_either_half_of_an_argument() {
    const BIG: u64 = 0x1234_5678_9abc_def0;
    let high = 0xff00_0000_0000_0000_u64;
    for (mask, wanted, value, is_equal) in [
        (0xff, 0x12, 0xffff_ffff_ffff_ff12, true),
        (0xff, 0x12, 0x13, false),
        (0xff, 0x1_0000_0012, 0x1_0000_0012, false),
        (high, 0x1200_0000_0000_0000, 0x12ff_ffff_ffff_ffff, true),
        (high, 0x1200_0000_0000_0000, 0x1300_0000_0000_0000, false),
        (high, 0x1200_0000_0000_0001, 0x1200_0000_0000_0001, false),
        (u64::MAX, BIG, BIG, true),
        (u64::MAX, BIG, BIG ^ 1, false),
        (u64::MAX, BIG, BIG ^ (1 << 40), false),
        (0, 0, 7, true),
        (0, 1, 1, false),
    ] {
        let p = parse(
            serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 1, "value": mask, "valueTwo": wanted, "op": "SCMP_CMP_MASKED_EQ"}]}]}),
        );
        let allowed = native(&p, "kill", &[0, value]) == RET_ALLOW;
        assert_eq!(allowed, is_equal, "{value:#x} & {mask:#x} == {wanted:#x}");
    }
}

#[test]
fn every_action() {
    for (name, want) in [
        ("SCMP_ACT_KILL", RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", RET_TRAP),
        ("SCMP_ACT_ERRNO", RET_ERRNO | 13),
        ("SCMP_ACT_TRACE", RET_TRACE | 13),
        ("SCMP_ACT_LOG", RET_LOG),
    ] {
        let p = parse(
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": name, "errnoRet": 13}]}),
        );
        assert_eq!(native(&p, "kill", &[]), want, "{name}");
        assert_eq!(native(&p, "getpid", &[]), RET_ALLOW);
    }
}

#[test]
fn other_architectures_have_their_own_numbers_or_die() {
    let json = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["getpid", "socketcall", "ioctl"], "action": "SCMP_ACT_ALLOW"}]});
    let p = parse(json.clone());
    let call = |p: &Program, arch, nr| {
        run(
            p,
            &Call {
                arch,
                number: nr,
                args: [0; 6],
            },
        )
    };
    assert_eq!(call(&p, X86.audit, 20), RET_ALLOW, "getpid of i386");
    assert_eq!(call(&p, X86.audit, 39), RET_ERRNO | 1, "39 is mkdir there");
    assert_eq!(call(&p, X86.audit, 102), RET_ALLOW);
    assert_eq!(
        call(&p, X86_64.audit, X32_BIT | 514),
        RET_ALLOW,
        "ioctl of x32"
    );
    assert_eq!(call(&p, X86_64.audit, X32_BIT | 16), RET_ERRNO | 1);
    assert_eq!(call(&p, ARM.audit, 20), RET_KILL_THREAD);
    let mut native_only = json;
    native_only["architectures"] = serde_json::json!(["SCMP_ARCH_X86_64"]);
    let p = parse(native_only);
    assert_eq!(call(&p, X86.audit, 20), RET_KILL_THREAD);
    assert_eq!(call(&p, X86_64.audit, X32_BIT | 39), RET_KILL_THREAD);
    assert_eq!(
        call(&p, X86_64.audit, u32::MAX),
        RET_ERRNO | 1,
        "a skipped call"
    );
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let p = parse(
        serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["close_range"], "action": "SCMP_ACT_ALLOW"}]}),
    );
    let nr = x86_64("close_range").unwrap();
    let at = |nr| {
        run(
            &p,
            &Call {
                arch: X86_64.audit,
                number: nr,
                args: [0; 6],
            },
        )
    };
    assert_eq!(
        (at(nr - 1), at(nr), at(nr + 1)),
        (RET_ERRNO | 1, RET_ALLOW, RET_ERRNO | 38)
    );
}

#[test]
fn conditions_on_different_arguments_all_hold_and_on_one_argument_are_alternatives() {
    let p = parse(
        serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}),
    );
    assert_eq!(native(&p, "kill", &[1, 2]), RET_ALLOW);
    assert_eq!(native(&p, "kill", &[1, 3]), RET_ERRNO | 1);
    assert_eq!(native(&p, "personality", &[8]), RET_ALLOW);
    assert_eq!(native(&p, "personality", &[4]), RET_ERRNO | 1);
}

#[test]
fn a_profile_with_every_call_and_many_conditions_still_assembles() {
    let names: Vec<String> = (0..460)
        .filter_map(syscalls::x86_64::Sysno::new)
        .map(|s| s.name().to_owned())
        .collect();
    let rules: Vec<_> = names.iter().enumerate().map(|(i, n)| {
        let args = if i % 3 == 0 { serde_json::json!([{"index": 0, "value": i, "op": "SCMP_CMP_GE"}]) } else { serde_json::json!([]) };
        serde_json::json!({"names": [n], "action": if i % 2 == 0 { "SCMP_ACT_ALLOW" } else { "SCMP_ACT_LOG" }, "args": args})
    }).collect();
    let p = parse(serde_json::json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": rules}));
    for (i, n) in names.iter().enumerate() {
        let want = if i % 2 == 0 { RET_ALLOW } else { RET_LOG };
        assert_eq!(native(&p, n, &[i as u64]), want, "{n}");
        if i % 3 == 0 && i > 0 {
            assert_eq!(
                native(&p, n, &[i as u64 - 1]),
                RET_KILL_PROCESS,
                "{n} below"
            );
        }
    }
}
