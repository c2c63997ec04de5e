//! Lists of files: 100, 10300 and 870, 102 and 110.

use super::Hub;
use crate::fields::{BadField, Fields};
use crate::file::{Facts, parse_share, parse_share_folder, parse_share_other, split_path};
use crate::kind;

/// Bytes of a path at most.
const MAX_PATH: usize = 1024;

impl Hub {
    pub(super) fn share(&mut self, who: u32, kind: u16, data: &[u8]) -> Result<(), BadField> {
        match kind {
            kind::SHARE_FOLDER => {
                let mut full = false;
                let index = &mut self.index;
                let (most, all) = (self.config.max_shared, self.config.max_files);
                let result = parse_share_folder(data, |folder, name, facts| {
                    full |= index.files_of(who) >= most || index.len() >= all;
                    if !full && !name.is_empty() && folder.len() + name.len() <= MAX_PATH {
                        // The folder as one writes it may end without its separator.
                        let (rest, name) = split_path(name);
                        if rest.is_empty() {
                            index.add(who, folder, name, &facts);
                        } else {
                            index.add(who, &[folder, rest].concat(), name, &facts);
                        }
                    }
                });
                if full {
                    self.too_many(who);
                }
                result
            }
            kind::SHARE => {
                let (path, facts) = parse_share(data)?;
                self.add_file(who, path, &facts)
            }
            _ => {
                let (path, facts) = parse_share_other(data)?;
                self.add_file(who, path, &facts)
            }
        }
    }

    fn add_file(&mut self, who: u32, path: &[u8], facts: &Facts) -> Result<(), BadField> {
        if self.index.files_of(who) >= self.config.max_shared
            || self.index.len() >= self.config.max_files
        {
            self.too_many(who);
            return Ok(());
        }
        let (folder, name) = split_path(path);
        if name.is_empty() || path.len() > MAX_PATH {
            return Err(BadField::Invalid("file"));
        }
        self.index.add(who, folder, name, facts);
        Ok(())
    }

    fn too_many(&mut self, who: u32) {
        let text = format!(
            "you share {} files, no more are taken",
            self.index.files_of(who)
        );
        self.limited(who, &text);
    }

    pub(super) fn unshare(&mut self, who: u32, data: &[u8]) -> Result<(), BadField> {
        let path = Fields::new(data).text("file")?;
        self.index.remove(who, b"", path);
        Ok(())
    }
}
