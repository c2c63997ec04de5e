//! What is there: `ls`, `du`, `count`, `stat`, `df`.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use shoal_base::Date;

use super::super::store::Location;
use super::{Call, Trouble};

/// How deep folders are looked into; deeper ones are told of as an error.
const DEPTH_MAX: usize = 1000;

/// What lies in a folder, in order of the names.
pub(super) fn inside(place: &Location) -> Result<Vec<Location>, Trouble> {
    let entries = fs::read_dir(&place.real).map_err(|e| Trouble::io(place, &e))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| Trouble::io(place, &e))?.file_name();
        // Names that are no text cannot be told; Hadoop's are all text.
        if let Ok(name) = name.into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.iter().map(|name| place.child(name)).collect())
}

/// Links are followed, as long as they lead somewhere.
fn about(place: &Location) -> Result<Metadata, Trouble> {
    let meta = place
        .real
        .metadata()
        .or_else(|_| place.real.symlink_metadata());
    meta.map_err(|e| Trouble::io(place, &e))
}

/// Calls `each` for all below a folder, folders before what is in them. Links to folders are not
/// gone into.
fn walk(
    place: &Location,
    depth: usize,
    each: &mut dyn FnMut(&Location, &Metadata) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    if depth > DEPTH_MAX {
        return Err(Trouble::path(place, "Too deep"));
    }
    for child in inside(place)? {
        let meta = about(&child)?;
        each(&child, &meta)?;
        if meta.is_dir() && !child.real.is_symlink() {
            walk(&child, depth + 1, each)?;
        }
    }
    Ok(())
}

/// `2010-01-13 14:00`, in UTC.
fn minute(meta: &Metadata) -> String {
    Date::utc(meta.mtime()).map_or_else(
        || "1970-01-01 00:00".to_owned(),
        |d| {
            format!(
                "{:04}-{:02}-{:02} {:02}:{:02}",
                d.year, d.month, d.day, d.hour, d.minute
            )
        },
    )
}

/// The name of the user whose files these are, if it is the one who asks; else a number.
fn owner(call: &Call<'_>, meta: &Metadata) -> String {
    let own = rustix::process::geteuid().as_raw() == meta.uid();
    if own {
        call.store.user().to_owned()
    } else {
        meta.uid().to_string()
    }
}

/// `1.5 K`, as Hadoop's shell writes sizes for people.
fn human(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["", " K", " M", " G", " T", " P"] {
        if size < 1024.0 {
            return if unit.is_empty() {
                bytes.to_string()
            } else {
                format!("{size:.1}{unit}")
            };
        }
        size /= 1024.0;
    }
    format!("{size:.1} E")
}

fn size(call: &Call<'_>, bytes: u64) -> String {
    if call.has("-h") {
        human(bytes)
    } else {
        bytes.to_string()
    }
}

fn line(call: &Call<'_>, place: &Location, meta: &Metadata) -> String {
    if call.has("-C") {
        return place.shown();
    }
    let mode = meta.permissions().mode();
    let bit = |n: u32, c: char| if mode >> n & 1 == 1 { c } else { '-' };
    let bits: String = (0..9)
        .map(|n| bit(8 - n, ['r', 'w', 'x'][n as usize % 3]))
        .collect();
    let (kind, copies, bytes) = if meta.is_dir() {
        ('d', "-", 0)
    } else {
        ('-', "1", meta.len())
    };
    format!(
        "{kind}{bits} {copies:>3} {} {} {:>10} {} {}",
        owner(call, meta),
        meta.gid(),
        size(call, bytes),
        minute(meta),
        place.shown()
    )
}

pub(super) fn ls(call: &mut Call<'_>) -> Result<(), Trouble> {
    let deep = call.name == "lsr" || call.has("-R");
    let (itself, bare) = (call.has("-d"), call.has("-C"));
    if call.paths.is_empty() {
        call.paths.push(".".to_owned());
    }
    call.each(|call, place| {
        let meta = about(place)?;
        if !meta.is_dir() || itself {
            let text = line(call, place, &meta);
            return call.say(&text);
        }
        if deep {
            return walk(place, 0, &mut |child, meta| {
                let text = line(call, child, meta);
                call.say(&text)
            });
        }
        let children = inside(place)?;
        if !children.is_empty() && !bare {
            call.say(&format!("Found {} items", children.len()))?;
        }
        for child in children {
            let text = line(call, &child, &about(&child)?);
            call.say(&text)?;
        }
        Ok(())
    })
}

/// Folders (itself included), files and bytes.
fn sums(place: &Location) -> Result<(u64, u64, u64), Trouble> {
    let meta = about(place)?;
    if !meta.is_dir() {
        return Ok((0, 1, meta.len()));
    }
    let (mut folders, mut files, mut bytes) = (1, 0, 0u64);
    walk(place, 0, &mut |_, meta| {
        if meta.is_dir() {
            folders += 1;
        } else {
            files += 1;
            bytes = bytes.saturating_add(meta.len());
        }
        Ok(())
    })?;
    Ok((folders, files, bytes))
}

pub(super) fn du(call: &mut Call<'_>) -> Result<(), Trouble> {
    let sum = call.name == "dus" || call.has("-s");
    if call.paths.is_empty() {
        call.paths.push(".".to_owned());
    }
    call.each(|call, place| {
        let of = if sum || !about(place)?.is_dir() {
            vec![place.clone()]
        } else {
            inside(place)?
        };
        for place in of {
            let bytes = sums(&place)?.2;
            // The second is what it takes with all copies, of which there is one.
            let (bytes, path) = (size(call, bytes), place.shown());
            call.say(&format!("{bytes}  {bytes}  {path}"))?;
        }
        Ok(())
    })
}

pub(super) fn count(call: &mut Call<'_>) -> Result<(), Trouble> {
    call.each(|call, place| {
        let (folders, files, bytes) = sums(place)?;
        let (bytes, path) = (size(call, bytes), place.shown());
        call.say(&format!("{folders:>12} {files:>12} {bytes:>18} {path}"))
    })
}

pub(super) fn stat(call: &mut Call<'_>) -> Result<(), Trouble> {
    let format = match call.paths.first() {
        Some(first) if first.contains('%') => call.paths.remove(0),
        _ => "%y".to_owned(),
    };
    if call.paths.is_empty() {
        return Err(Trouble::Usage("Not enough arguments".to_owned()));
    }
    call.each(|call, place| {
        let meta = about(place)?;
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(c) = letters.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            match letters.next() {
                Some('b') if meta.is_dir() => text.push('0'),
                Some('b') => text.push_str(&meta.len().to_string()),
                Some('F') if meta.is_dir() => text.push_str("directory"),
                Some('F') => text.push_str("regular file"),
                Some('n') => text.push_str(place.name()),
                Some('o') => text.push_str(&meta.blksize().to_string()),
                Some('r') => text.push(if meta.is_dir() { '0' } else { '1' }),
                Some('u') => text.push_str(&owner(call, &meta)),
                Some('g') => text.push_str(&meta.gid().to_string()),
                Some('a') => text.push_str(&format!("{:o}", meta.mode() & 0o7777)),
                Some('y') => match Date::utc(meta.mtime()) {
                    None => text.push('?'),
                    Some(d) => text.push_str(&format!(
                        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
                        d.year, d.month, d.day, d.hour, d.minute, d.second
                    )),
                },
                Some('Y') => text.push_str(&(meta.mtime() * 1000).to_string()),
                Some('%') => text.push('%'),
                other => {
                    let other = other.map_or_else(String::new, String::from);
                    return Err(Trouble::Usage(format!("%{other} is no field")));
                }
            }
        }
        call.say(&text)
    })
}

pub(super) fn df(call: &mut Call<'_>) -> Result<(), Trouble> {
    let stat = rustix::fs::statvfs(call.store.root())
        .map_err(|e| Trouble::Path("hdfs:///".to_owned(), e.to_string()))?;
    let all = stat.f_blocks.saturating_mul(stat.f_frsize);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let used = all.saturating_sub(free);
    let percent = (used.saturating_mul(100)).checked_div(all).unwrap_or(0);
    let (all, used, free) = (size(call, all), size(call, used), size(call, free));
    call.say(&format!(
        "{:<12} {:>16} {:>16} {:>16} Use%",
        "Filesystem", "Size", "Used", "Available"
    ))?;
    call.say(&format!(
        "{:<12} {all:>16} {used:>16} {free:>16} {percent:>3}%",
        "hdfs:///"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(1023), "1023");
        assert_eq!(human(1536), "1.5 K");
        assert_eq!(human(3 << 30), "3.0 G");
        assert_eq!(human(u64::MAX), "16.0 E");
    }
}
