mod support; fn main(){}
