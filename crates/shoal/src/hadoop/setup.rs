//! A folder that programs take for an installed Hadoop.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{NAMES, VERSION, complain, say};

/// The end of an archive without entries: a jar in which nothing is. It is looked for, not read.
const EMPTY_JAR: [u8; 22] = {
    let mut bytes = [0; 22];
    [bytes[0], bytes[1], bytes[2], bytes[3]] = *b"PK\x05\x06";
    bytes
};

/// Makes a folder a HADOOP_HOME.
pub(super) fn setup(words: &[String]) -> u8 {
    let [dir] = words else {
        complain("usage: shoal hadoop setup DIR\n");
        return 255;
    };
    match make(Path::new(dir)) {
        Ok(home) => {
            say(&format!(
                "export HADOOP_HOME='{home}'\nexport PATH=\"$HADOOP_HOME/bin:$PATH\"\n"
            ));
            0
        }
        Err(e) => {
            complain(&format!("hadoop setup: cannot make {dir}: {e}\n"));
            1
        }
    }
}

fn make(dir: &Path) -> io::Result<String> {
    let program = std::env::current_exe()?;
    let (bin, lib) = (dir.join("bin"), dir.join("share/hadoop/tools/lib"));
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(&lib)?;
    for name in NAMES {
        let link = bin.join(name);
        // Only a link of an earlier time is in the way of ours.
        if link.is_symlink() {
            fs::remove_file(&link)?;
        }
        symlink(&program, &link)?;
    }
    fs::write(
        lib.join(format!("hadoop-streaming-{VERSION}.jar")),
        EMPTY_JAR,
    )?;
    Ok(fs::canonicalize(dir)?.to_string_lossy().into_owned())
}
