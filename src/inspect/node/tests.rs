use super::*;

#[test]
fn what_is_well_needs_no_remedy() {
    let mut out = Findings::default();
    out.test("a", true, State::Failing, "x", "do this");
    out.test("b", false, State::Degraded, "y", "do that");
    let remedies: Vec<&str> = out.all.iter().map(|f| f.remedy.as_str()).collect();
    assert_eq!(remedies, ["", "do that"]);
    assert!(State::Failing > State::Degraded && State::Degraded > State::Ok);
}
