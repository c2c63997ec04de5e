//! Levels of a Tiger tree and names of contents from a stranger: read or refused, and what is read
//! holds together.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_content::{TigerRoot, TigerTree, Urn};

fuzz_target!(|bytes: &[u8]| {
    if let Some(urn) = str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse::<Urn>().ok())
    {
        assert_eq!(urn.to_string().parse(), Ok(urn));
    }
    let Some((len, levels)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let len = u64::from_le_bytes(*len);
    let root = TigerRoot(*levels.first_chunk().unwrap_or(&[0; 24]));
    if let Ok(tree) = TigerTree::from_levels(len, root, levels) {
        assert_eq!(tree.root(), root);
        assert!(tree.spans().len() <= 1024);
        let again = TigerTree::from_levels(len, root, &tree.to_levels());
        assert_eq!(again.as_ref(), Ok(&tree));
    }
});
