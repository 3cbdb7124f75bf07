//! NVIDIA's own Python binding reads the simulated library, so that the simulator is not only right by its own measure.

use racklake_nvml_sim::{Scenario, install, library_path};
use racklake_tests::python;

const SCENARIO: &str = "account = \"account.jsonl\"\n[[gpu]]\nvalue_types = { \"field:82\" = 5 }\nxid = [{ code = 79 }]\n\
                        [[gpu]]\nfan = \"none\"\n";

#[test]
fn nvidias_own_binding_reads_what_the_simulated_library_serves() {
    let folder = tempfile::tempdir().unwrap();
    let built = library_path().expect("cargo builds the simulated library beside the tests");
    let library = install(&built, folder.path(), "node", &Scenario::parse(SCENARIO).unwrap()).unwrap();
    let account = folder.path().join("account.jsonl");
    let arguments = [library.display().to_string(), account.display().to_string()];
    println!("{}", python::run("read_nvml.py", &arguments.each_ref().map(String::as_str)).unwrap());
}
