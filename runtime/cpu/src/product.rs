//! stub
use thalweg_graph::kernel::LoopNest;
#[derive(Debug)]
pub(crate) struct Product;
impl Product {
    pub(crate) fn recognize(_: &LoopNest) -> Option<Self> {
        None
    }
    pub(crate) fn workspace_bytes(&self) -> usize {
        0
    }
    pub(crate) fn strategy(&self) -> String {
        String::new()
    }
    pub(crate) unsafe fn run(&self, _: &[*const u8], _: &[*mut u8], _: *mut u8, _: Option<&rayon::ThreadPool>) {}
}
