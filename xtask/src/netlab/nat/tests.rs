use super::Cell;
use crate::lab::nat::Nat;

#[test]
fn cells_are_read_as_people_type_them() {
    let cell = Cell {
        a: Nat::Linux,
        b: Nat::CarrierGradeSymmetric,
    };
    for text in [
        "linux×cgnat-symmetric",
        "linux:cgnat-symmetric",
        "linux × cgnat-symmetric",
    ] {
        assert_eq!(text.parse::<Cell>().unwrap(), cell, "{text}");
    }
    assert!("linux".parse::<Cell>().is_err());
    assert!("linux:cone".parse::<Cell>().is_err());
}
