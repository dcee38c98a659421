//! Opens files safely: no link is followed in a directory that others can write to, no path is
//! checked and then opened by name, and a FIFO or a device in the place of a file holds nobody.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::libc;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The largest file that is read whole, in bytes.
const LARGEST: u64 = 16 << 20;
/// The kernel follows as many links in one path (`path_resolution(7)`).
const MOST_LINKS: u32 = 40;
/// So often a file is opened again that others make and remove meanwhile.
const MOST_TRIES: u32 = 10;
/// Why what is no file is not opened.
const NOT_A_FILE: &str = "not a regular file";
/// Group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Files in such a directory get its group.
const SET_GROUP_ID: u32 = 0o2000;

/// Opens a regular file that the administrator has named, for reading.
///
/// # Errors
/// It cannot be opened, is no regular file or is larger than 16 MiB.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(NOT_A_FILE));
    }
    if metadata.len() > LARGEST {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok((file, metadata))
}

/// The names in a directory that the administrator has named, and the directory's metadata.
///
/// # Errors
/// It cannot be read, or is no directory.
pub(crate) fn list(path: &Path) -> io::Result<(Metadata, Vec<OsString>)> {
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(path)?;
    let metadata = directory.metadata()?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        names.push(OsString::from_vec(name));
    }
    Ok((metadata, names))
}

/// Reads such a file.
///
/// # Errors
/// As for `open`.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (file, metadata) = open(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file for appending, as `Directory::append` does; makes it with that mode if it is missing.
///
/// # Errors
/// As for `Directory::append`; also when the directory cannot be opened.
pub(crate) fn open_append(path: &Path, mode: u32) -> io::Result<File> {
    let (directory, name) = split(path)?;
    let directory = Directory::open(directory)?;
    directory.append(name, mode)
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    Read,
    Append,
    ReadAndWrite,
}

impl Access {
    fn flags(self) -> OFlags {
        let access = match self {
            Self::Read => OFlags::RDONLY,
            Self::Append => OFlags::WRONLY | OFlags::APPEND,
            Self::ReadAndWrite => OFlags::RDWR,
        };
        // O_NONBLOCK: a FIFO must not hold the run; it means nothing to a regular file.
        access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
    }
}

/// An open directory, and who can change what is in it.
#[derive(Debug)]
pub(crate) struct Directory {
    descriptor: OwnedFd,
    owner: u32,
    mode: u32,
    /// Our own effective user ID.
    us: u32,
}

impl Directory {
    /// Opens a directory. A link in its path is followed only where nobody but root and we can
    /// change the directory in which the link lies.
    ///
    /// # Errors
    /// It is not there, is no directory, or lies behind a link that others can change.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Ok(descriptor) => Self::of(descriptor),
            // There is a link in it; or the kernel (before Linux 5.6) or a filter refuses the call.
            Err(Errno::LOOP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                Walk::new(None).to(None, path)
            }
            Err(reason) => Err(reason.into()),
        }
    }

    /// Opens a directory as `open` does, and makes what of its path is missing with that mode.
    ///
    /// # Errors
    /// As for `open`; also when a directory cannot be made.
    pub(crate) fn make(path: &Path, mode: u32) -> io::Result<Self> {
        match Self::open(path) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
                Walk::new(Some(mode)).to(None, path)
            }
            opened => opened,
        }
    }

    /// Opens a file in it for appending, and makes it with that mode if it is missing. What root
    /// makes in somebody else's directory belongs to that user.
    ///
    /// # Errors
    /// It cannot be opened or made; it is not a regular file (in a directory that only root and we
    /// can change, a character device such as /dev/null will do), has more than one link, or belongs
    /// to somebody other than root, us and the directory's owner in a directory that others can
    /// write to; it is a link in such a directory.
    pub(crate) fn append(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        self.open_checked(name, Access::Append, Some(mode))
    }

    /// Opens a file in it for reading. What a link of others leads to is not opened: to open a device can be an action.
    ///
    /// # Errors
    /// As for `append`.
    pub(crate) fn read(&self, name: &OsStr) -> io::Result<File> {
        self.open_checked(name, Access::Read, None)
    }

    /// Opens a file in it for reading and writing, as `append` does.
    ///
    /// # Errors
    /// As for `append`.
    pub(crate) fn read_and_write(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        self.open_checked(name, Access::ReadAndWrite, Some(mode))
    }

    /// Opens a file in it for reading and writing that is there already, as `append` does.
    ///
    /// # Errors
    /// As for `append`.
    pub(crate) fn existing(&self, name: &OsStr) -> io::Result<File> {
        self.open_checked(name, Access::ReadAndWrite, None)
    }

    /// Whether this name still leads to that open file.
    pub(crate) fn leads_to(&self, name: &OsStr, file: &File) -> bool {
        let Ok(open) = rustix::fs::fstat(file) else {
            return false;
        };
        let is_it = |stat: &Stat| (stat.st_dev, stat.st_ino) == (open.st_dev, open.st_ino);
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                let opened = self.existing(name);
                opened
                    .and_then(|file| Ok(rustix::fs::fstat(&file)?))
                    .is_ok_and(|stat| is_it(&stat))
            }
            Ok(stat) => is_it(&stat),
            Err(_) => false,
        }
    }

    fn of(descriptor: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&descriptor)?;
        Ok(Self {
            descriptor,
            owner: stat.st_uid,
            mode: stat.st_mode,
            us: rustix::process::geteuid().as_raw(),
        })
    }

    /// Whether nobody but root and we can change what is in it.
    fn is_ours(&self) -> bool {
        is_changed_only_by(self.us, self.owner, self.mode)
    }

    fn is_link(&self, name: &OsStr) -> bool {
        rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    fn open_checked(&self, name: &OsStr, access: Access, make: Option<u32>) -> io::Result<File> {
        self.open_file(name, access, make, MOST_LINKS)
    }

    fn open_file(
        &self,
        name: &OsStr,
        access: Access,
        make: Option<u32>,
        links: u32,
    ) -> io::Result<File> {
        let flags = access.flags();
        for _ in 0..MOST_TRIES {
            // Without O_CREAT first: `fs.protected_regular` refuses it in /tmp (proc_sys_fs(5)).
            match (
                rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()),
                make,
            ) {
                (Ok(file), _) => {
                    let file = File::from(file);
                    self.check(&file, access)?;
                    return Ok(file);
                }
                (Err(Errno::LOOP), _) => return self.follow(name, access, make, links),
                // A FIFO that nobody reads, or a socket (open(2)).
                (Err(Errno::NXIO), _) => return Err(io::Error::other(NOT_A_FILE)),
                (Err(Errno::NOENT), Some(mode)) => {
                    let new = flags | OFlags::CREATE | OFlags::EXCL;
                    let mode = Mode::from_raw_mode(mode);
                    match rustix::fs::openat(&self.descriptor, name, new, mode) {
                        Ok(file) => {
                            let file = File::from(file);
                            self.give(&file);
                            if access == Access::Append {
                                self.show_to_adm(&file);
                            }
                            return Ok(file);
                        }
                        Err(Errno::EXIST) => (),
                        Err(reason) => return Err(reason.into()),
                    }
                }
                (Err(reason), _) => return Err(reason.into()),
            }
        }
        Err(io::Error::other("the file keeps being replaced"))
    }

    fn follow(
        &self,
        name: &OsStr,
        access: Access,
        make: Option<u32>,
        links: u32,
    ) -> io::Result<File> {
        let target = self.link(name, links)?;
        let (directory, name) = split(&target)?;
        let directory = Walk::new(None).to(Some(self), directory)?;
        directory.open_file(name, access, make, links - 1)
    }

    /// What a link in it leads to, where it may be followed.
    fn link(&self, name: &OsStr, links: u32) -> io::Result<PathBuf> {
        if !self.is_ours() {
            return Err(io::Error::other(
                "a symbolic link in a directory that others can write to",
            ));
        }
        if links == 0 {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(&self.descriptor, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Whether this file of it is what it should be.
    fn check(&self, file: &File, access: Access) -> io::Result<()> {
        let stat = rustix::fs::fstat(file)?;
        let is_ours = self.is_ours();
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (),
            FileType::CharacterDevice if is_ours && access == Access::Append => (),
            _ => return Err(io::Error::other(NOT_A_FILE)),
        }
        if stat.st_nlink > 1 {
            let links = stat.st_nlink;
            return Err(io::Error::other(format!(
                "the file has {links} names (hard links)"
            )));
        }
        if is_ours || [0, self.us, self.owner].contains(&stat.st_uid) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the file belongs to UID {}, in a directory that others can write to",
            stat.st_uid
        )))
    }

    /// Gives a log that root has made in a directory of root to group adm, unless the directory gives its
    /// files a group (set-group-ID). What cannot be given keeps its group.
    fn show_to_adm(&self, file: &File) {
        if self.owner == 0 && self.us == 0 && self.mode & SET_GROUP_ID == 0 {
            if let Some(adm) = adm() {
                let _ = rustix::fs::fchown(file, None, Some(adm));
            }
        }
    }

    /// Gives a file that root has made here to the directory's owner. What cannot be given stays
    /// root's.
    fn give(&self, file: &File) {
        if self.owner != 0 && self.us == 0 {
            let owner = rustix::process::Uid::from_raw(self.owner);
            let _ = rustix::fs::fchown(file, Some(owner), None);
        }
    }
}

/// The group that reads logs on Debian and elsewhere. Only the file is asked, because a directory
/// service can fail to respond.
fn adm() -> Option<rustix::process::Gid> {
    let groups = read(Path::new("/etc/group")).ok()?;
    group_in(&String::from_utf8_lossy(&groups), "adm").map(rustix::process::Gid::from_raw)
}

/// A group's ID in the text of `group(5)`.
fn group_in(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut group = lines.find(|fields| fields.clone().next() == Some(name))?;
    group.nth(2)?.parse().ok()
}

/// A file that was opened to be shown to others, and who could have put it there.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    /// Whether any user can read it: by its own mode and by those of the directories on its path.
    pub(crate) is_public: bool,
    /// Whether nobody but root and its own owner can change the directories on its path.
    pub(crate) is_its_owners: bool,
}

/// Opens a regular file for reading, whose text is to be shown to others. It may be no link.
///
/// # Errors
/// It cannot be opened, is a link, is not a regular file or has more than one link; a link in its
/// path lies in a directory that others can change.
pub(crate) fn open_to_show(path: &Path) -> io::Result<Shown> {
    let (directory, name) = split(path)?;
    let mut walk = Walk::new(None);
    let directory = walk.to(None, directory)?;
    let flags = Access::Read.flags();
    let file = rustix::fs::openat(&directory.descriptor, name, flags, Mode::empty())?;
    let file = File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(NOT_A_FILE));
    }
    if metadata.nlink() > 1 {
        return Err(io::Error::other("the file has more than one name"));
    }
    let seen = &walk.seen;
    Ok(Shown {
        is_public: metadata.mode() & 0o004 != 0 && seen.iter().all(|(_, mode)| mode & 0o001 != 0),
        is_its_owners: seen.iter().all(|(owner, mode)| {
            is_changed_only_by(metadata.uid(), *owner, *mode & !sticky(*mode))
        }),
        file,
        metadata,
    })
}

/// The way to a directory, component by component.
struct Walk {
    /// The mode of directories that are made where they are missing.
    make: Option<u32>,
    links: u32,
    /// Owner and mode of each directory on the way.
    seen: Vec<(u32, u32)>,
}

impl Walk {
    fn new(make: Option<u32>) -> Self {
        Self {
            make,
            links: MOST_LINKS,
            seen: Vec::new(),
        }
    }

    fn to(&mut self, from: Option<&Directory>, path: &Path) -> io::Result<Directory> {
        let mut left: Vec<OsString> = reversed(path);
        let mut here = match from {
            Some(from) if !path.is_absolute() => self.step(&from.descriptor, OsStr::new("."))?,
            // Only what is on the way counts.
            _ if path.is_absolute() => self.step(CWD, OsStr::new("/"))?,
            _ => self.step(CWD, OsStr::new("."))?,
        };
        while let Some(name) = left.pop() {
            match self.step(&here.descriptor, &name) {
                Ok(next) => here = next,
                // O_DIRECTORY says so of a link, too.
                Err(Errno::NOTDIR) if here.is_link(&name) => {
                    let target = here.link(&name, self.links)?;
                    self.links -= 1;
                    left.extend(reversed(&target));
                }
                Err(reason) => return Err(reason.into()),
            }
        }
        Ok(here)
    }

    fn step(
        &mut self,
        from: impl rustix::fd::AsFd + Copy,
        name: &OsStr,
    ) -> Result<Directory, Errno> {
        // O_DIRECTORY has an automount mounted (openat(2), O_PATH).
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(from, name, flags, Mode::empty());
        let descriptor = match (open(), self.make) {
            (Err(Errno::NOENT), Some(mode)) => {
                match rustix::fs::mkdirat(from, name, Mode::from_raw_mode(mode)) {
                    Ok(()) | Err(Errno::EXIST) => open()?,
                    Err(reason) => return Err(reason),
                }
            }
            (opened, _) => opened?,
        };
        let directory = Directory::of(descriptor)
            .map_err(|reason| Errno::from_io_error(&reason).unwrap_or(Errno::IO))?;
        self.seen.push((directory.owner, directory.mode));
        Ok(directory)
    }
}

/// Whether nobody but root and this user can change what is in a directory of that owner and mode.
fn is_changed_only_by(user: u32, owner: u32, mode: u32) -> bool {
    (owner == 0 || owner == user) && mode & OTHERS_WRITE == 0
}

/// In a sticky directory others can add names, but not change those of files that are not theirs.
fn sticky(mode: u32) -> u32 {
    if mode & 0o1000 == 0 { 0 } else { OTHERS_WRITE }
}

/// The components of a path, the first one last; `/` is one.
fn reversed(path: &Path) -> Vec<OsString> {
    let components = path
        .components()
        .rev()
        .filter(|part| *part != Component::CurDir);
    components.map(|part| part.as_os_str().to_owned()).collect()
}

/// A path's directory and the file's name in it.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let is_directory = path.as_os_str().as_bytes().ends_with(b"/");
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) if !is_directory => Ok((directory, name)),
        _ => Err(Errno::ISDIR.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;
    use crate::skip::skip;

    const SOMEBODY: u32 = 4711;
    const OTHER: u32 = 4712;

    /// A directory of ours in which tests make their own; nobody else can change it.
    fn ours() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        set(directory.path(), 0o700);
        directory
    }

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn reason(opened: io::Result<File>) -> String {
        opened.unwrap_err().to_string()
    }

    #[test]
    fn nothing_but_a_regular_file_is_read() {
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(at("file"), "text").unwrap();
        File::create(at("huge"))
            .unwrap()
            .set_len(LARGEST + 1)
            .unwrap();
        assert_eq!(read(&at("file")).unwrap(), b"text");
        for other in [
            at("fifo"),
            at("huge"),
            at("absent"),
            at(""),
            "/dev/zero".into(),
        ] {
            assert!(read(&other).is_err(), "{}", other.display());
        }
    }

    #[test]
    fn a_file_is_made_once_and_then_opened() {
        let directory = ours();
        let path = directory.path().join("file");
        for text in ["one", "two"] {
            let mut file = open_append(&path, 0o640).unwrap();
            io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "onetwo");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        for bad in ["absent/file", "file/below"] {
            assert!(open_append(&directory.path().join(bad), 0o640).is_err());
        }
        assert!(open_append(directory.path(), 0o640).is_err());
        assert!(open_append(Path::new("/"), 0o640).is_err());
    }

    #[test]
    fn group_adm_reads_a_new_log_of_root_and_nothing_else() {
        assert_eq!(
            group_in("x:x:1:\nadm:x:4:syslog\nadm2:x:5:\n", "adm"),
            Some(4)
        );
        assert_eq!(group_in("adm2:x:5:\nadm\n", "adm"), None);
        assert_eq!(group_in("adm:x:-1:\n", "adm"), None);
        if !is_root() {
            return skip("only new logs of root are given to group adm");
        }
        let Some(adm) = adm().map(rustix::process::Gid::as_raw) else {
            return skip("there is no group adm");
        };
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        let group = |name: &str| std::fs::metadata(at(name)).unwrap().gid();
        std::fs::write(at("old"), "").unwrap();
        chown(at("old"), None, Some(OTHER)).unwrap();
        for name in ["old", "new"] {
            open_append(&at(name), 0o640).unwrap();
        }
        let opened = Directory::open(directory.path()).unwrap();
        opened.append(OsStr::new("log"), 0o640).unwrap();
        opened.read_and_write(OsStr::new("lock"), 0o600).unwrap();
        assert_eq!(
            (group("old"), group("new"), group("log")),
            (OTHER, adm, adm)
        );
        assert_eq!(
            group("lock"),
            std::fs::metadata(directory.path()).unwrap().gid()
        );

        chown(directory.path(), None, Some(OTHER)).unwrap();
        set(directory.path(), 0o2750);
        open_append(&at("of the directory"), 0o640).unwrap();
        assert_eq!(group("of the directory"), OTHER);
        chown(directory.path(), Some(SOMEBODY), None).unwrap();
        set(directory.path(), 0o750);
        open_append(&at("somebody's"), 0o640).unwrap();
        assert_ne!(group("somebody's"), adm);
    }

    #[test]
    fn hazard_42_a_link_is_followed_only_where_nobody_else_can_change_it() {
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        for name in ["real", "open", "sticky"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("real/file"), "").unwrap();
        for (name, target) in [
            ("link", at("real/file")),
            ("relative", "real/../real/file".into()),
            ("directory", at("real")),
            ("new", at("real/made")),
            ("chain", "link".into()),
            ("circle", "circle".into()),
            ("nothing", at("absent/file")),
            ("open/link", at("real/file")),
            ("open/directory", at("real")),
            ("sticky/link", at("real/file")),
        ] {
            symlink(target, at(name)).unwrap();
        }
        set(&at("open"), 0o775);
        set(&at("sticky"), 0o1777);
        for followed in ["link", "relative", "directory/file", "chain", "new"] {
            assert!(open_append(&at(followed), 0o640).is_ok(), "{followed}");
        }
        assert!(at("real/made").exists());
        assert!(open_append(&at("circle"), 0o640).is_err());
        assert!(open_append(&at("nothing"), 0o640).is_err());
        for refused in ["open/link", "open/directory/file", "sticky/link"] {
            assert_eq!(
                reason(open_append(&at(refused), 0o640)),
                "a symbolic link in a directory that others can write to",
                "{refused}"
            );
        }
    }

    #[test]
    fn hazard_43_a_file_of_two_names_is_refused() {
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("victim"), "precious").unwrap();
        std::fs::hard_link(at("victim"), at("link")).unwrap();
        assert_eq!(
            reason(open_append(&at("link"), 0o600)),
            "the file has 2 names (hard links)"
        );
    }

    #[test]
    fn what_is_no_file_holds_nobody_and_is_refused() {
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(
            reason(open_append(&at("fifo"), 0o640)),
            "not a regular file"
        );
        let opened = Directory::open(directory.path()).unwrap();
        // Without a reader a FIFO refuses a writer.
        assert!(opened.append(OsStr::new("fifo"), 0o640).is_err());
        let null = Directory::open(Path::new("/dev")).unwrap();
        assert!(null.append(OsStr::new("null"), 0o640).is_ok());
        assert!(null.read_and_write(OsStr::new("null"), 0o640).is_err());
    }

    #[test]
    fn hazard_42_in_a_directory_of_others_the_owner_of_a_file_counts() {
        if !is_root() {
            return skip("only root can make files for others");
        }
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        // Directory, its owner and mode, the file's owner: whether root opens it.
        for (name, owner, mode, expected) in [
            ("safe", 0, 0o755, [true, true, true]),
            ("group", 0, 0o775, [true, false, false]),
            ("sticky", 0, 0o1777, [true, false, false]),
            ("somebodys", SOMEBODY, 0o755, [true, true, false]),
        ] {
            std::fs::create_dir(at(name)).unwrap();
            for (user, expected) in [0, SOMEBODY, OTHER].into_iter().zip(expected) {
                let file = at(name).join(user.to_string());
                std::fs::write(&file, "").unwrap();
                chown(&file, Some(user), None).unwrap();
                chown(at(name), Some(owner), None).unwrap();
                set(&at(name), mode);
                let opened = open_append(&file, 0o640);
                assert_eq!(opened.is_ok(), expected, "{name} {user}");
            }
            let new = at(name).join("new");
            open_append(&new, 0o640).unwrap();
            assert_eq!(std::fs::metadata(new).unwrap().uid(), owner, "{name}");
        }
    }

    #[test]
    fn missing_directories_are_made() {
        let directory = ours();
        let deep = directory.path().join("a/b/c");
        assert!(Directory::open(&deep).is_err());
        Directory::make(&deep, 0o700).unwrap();
        assert_eq!(std::fs::metadata(&deep).unwrap().mode() & 0o777, 0o700);
        std::fs::write(deep.join("file"), "").unwrap();
        for not in ["file", "file/below"] {
            let reason = Directory::make(&deep.join(not), 0o700).unwrap_err();
            assert_eq!(reason.raw_os_error(), Some(libc::ENOTDIR));
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_noticed() {
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        let opened = Directory::open(directory.path()).unwrap();
        let name = OsStr::new("lock");
        let file = opened.read_and_write(name, 0o600).unwrap();
        assert!(opened.leads_to(name, &file));
        std::fs::rename(at("lock"), at("moved")).unwrap();
        assert!(!opened.leads_to(name, &file));
        symlink("moved", at("lock")).unwrap();
        assert!(opened.leads_to(name, &file));
        std::fs::write(at("other"), "").unwrap();
        std::fs::rename(at("other"), at("lock")).unwrap();
        assert!(!opened.leads_to(name, &file));
    }

    #[test]
    fn who_can_read_and_change_a_file_that_is_shown_is_known() {
        let directory = ours();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("logs")).unwrap();
        std::fs::write(at("logs/a.log"), "text").unwrap();
        set(&at("logs/a.log"), 0o644);
        set(directory.path(), 0o700);
        let shown = open_to_show(&at("logs/a.log")).unwrap();
        assert!(!shown.is_public && shown.is_its_owners);
        set(directory.path(), 0o755);
        assert!(open_to_show(&at("logs/a.log")).unwrap().is_public);
        set(&at("logs"), 0o775);
        assert!(!open_to_show(&at("logs/a.log")).unwrap().is_its_owners);
        symlink("a.log", at("logs/link.log")).unwrap();
        assert!(open_to_show(&at("logs/link.log")).is_err());
        std::fs::hard_link(at("logs/a.log"), at("logs/b.log")).unwrap();
        assert!(open_to_show(&at("logs/a.log")).is_err());
    }

    #[test]
    fn the_slow_way_finds_the_same_directory() {
        let directory = ours();
        let deep = directory.path().join("a/../a/./b");
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        let fast = Directory::open(&deep).unwrap();
        let slow = Walk::new(None).to(None, &deep).unwrap();
        let inode = |one: &Directory| rustix::fs::fstat(&one.descriptor).unwrap().st_ino;
        assert_eq!(inode(&fast), inode(&slow));
        let here = Walk::new(None).to(None, Path::new("src")).unwrap();
        assert_eq!(
            inode(&here),
            inode(&Directory::open(Path::new("src")).unwrap())
        );
    }
}
