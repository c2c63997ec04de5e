//! The numbers of the messages: Napster's own, and OpenNap's additions.

macro_rules! kinds {
    ($($name:ident = $number:literal, $what:literal;)*) => {
        $(#[doc = $what] pub const $name: u16 = $number;)*

        /// What a message type is for; none if it is not known.
        pub fn describe(kind: u16) -> Option<&'static str> {
            match kind {
                $($number => Some($what),)*
                _ => None,
            }
        }
    };
}

kinds! {
    LOGIN_ERROR = 0, "the login failed: text";
    LOGIN = 2, "log in: nick password port \"client\" link";
    LOGIN_ACK = 3, "the login succeeded: email";
    VERSION = 4, "the client's version";
    UPGRADE = 5, "upgrade your client";
    REGISTER = 6, "register and log in: nick password port \"client\" link email";
    CHECK_NICK = 7, "is this nick free?";
    NICK_FREE = 8, "the nick is not registered";
    NICK_TAKEN = 9, "the nick is registered";
    NICK_INVALID = 10, "no such nick can be";
    CHECK_PASSWORD = 11, "check a password: nick password";
    PASSWORD_OK = 12, "the password is right";
    ECHO = 13, "echo";
    LOGIN_OPTIONS = 14, "login options";
    SHARE = 100, "share: \"file\" md5 size bitrate frequency seconds";
    UNSHARE = 102, "share no longer: \"file\"";
    UNSHARE_ALL = 110, "share nothing";
    SEARCH = 200, "search";
    SEARCH_HIT = 201, "a hit: \"file\" md5 size bitrate frequency seconds nick ip link";
    SEARCH_END = 202, "no more hits";
    DOWNLOAD = 203, "ask to download: nick \"file\"";
    DOWNLOAD_ACK = 204, "go ahead: nick ip port \"file\" md5 link";
    PRIVATE = 205, "private message: nick text";
    GET_ERROR = 206, "not available: nick \"file\"";
    HOTLIST_ADD = 207, "watch a nick";
    HOTLIST_INITIAL = 208, "watch a nick (at login)";
    SIGNON = 209, "a watched nick came: nick link";
    SIGNOFF = 210, "a watched nick left";
    BROWSE = 211, "list what a nick shares";
    BROWSE_HIT = 212, "one file: nick \"file\" md5 size bitrate frequency seconds";
    BROWSE_END = 213, "end of the list: nick ip";
    STATS = 214, "users files gigabytes";
    RESUME = 215, "who has this content: md5 size";
    RESUME_HIT = 216, "a holder: nick ip port \"file\" md5 size link";
    RESUME_END = 217, "no more holders";
    DOWNLOAD_START = 218, "a download began";
    DOWNLOAD_DONE = 219, "a download ended";
    UPLOAD_START = 220, "an upload began";
    UPLOAD_DONE = 221, "an upload ended";
    OPTIONAL_PORTS = 300, "other data ports to try: port";
    HOTLIST_ACK = 301, "now watched: nick";
    HOTLIST_ERROR = 302, "cannot be watched: nick";
    HOTLIST_REMOVE = 303, "watch no longer";
    IGNORE_LIST = 320, "the ignore list, or its end";
    IGNORE_ENTRY = 321, "one ignored nick";
    IGNORE_ADD = 322, "ignore a nick";
    IGNORE_REMOVE = 323, "ignore a nick no longer";
    IGNORE_UNKNOWN = 324, "that nick is not ignored";
    IGNORE_ALREADY = 325, "that nick is ignored already";
    IGNORE_CLEAR = 326, "ignore nobody";
    JOIN = 400, "join a room";
    PART = 401, "leave a room";
    PUBLIC = 402, "say in a room: room text";
    PUBLIC_HEARD = 403, "said in a room: room nick text";
    ERROR = 404, "something failed: text";
    JOIN_ACK = 405, "joined: room";
    JOINED = 406, "somebody joined: room nick files link";
    PARTED = 407, "somebody left: room nick files link";
    MEMBER = 408, "a member: room nick files link";
    MEMBERS_END = 409, "no more members: room";
    TOPIC = 410, "the topic: room text";
    ROOM_BANS = 420, "list a room's bans";
    ROOM_BAN_ENTRY = 421, "one ban of a room";
    ROOM_BAN = 422, "ban from a room: room nick";
    ROOM_UNBAN = 423, "unban from a room: room nick";
    ROOM_BANS_CLEAR = 424, "lift all bans of a room";
    PUSH = 500, "ask a firewalled sharer to connect: nick \"file\"";
    PUSH_ACK = 501, "connect to the downloader: nick ip port \"file\" md5 link";
    LINK_SPEED = 600, "ask for a nick's link";
    LINK_SPEED_ACK = 601, "nick link";
    WHOIS = 603, "who is this nick?";
    WHOIS_ACK = 604, "the answer";
    WHOWAS = 605, "who was this nick (not here now)";
    SET_LEVEL = 606, "change a user's level: nick level";
    UPLOAD_REQUEST = 607, "somebody wants a file: nick \"file\"";
    UPLOAD_ACK = 608, "the sharer accepts: nick \"file\"";
    UPLOAD_REFUSED = 609, "the sharer refuses: nick \"file\"";
    KILL = 610, "disconnect a user: nick \"reason\"";
    NUKE = 611, "delete a registration: nick";
    BAN = 612, "ban a nick or address: whom \"reason\"";
    SET_PORT = 613, "change a user's data port: nick port";
    UNBAN = 614, "lift a ban";
    BANS = 615, "list the bans; its end";
    BAN_ENTRY = 616, "one ban: whom nick \"reason\" time";
    LIST_ROOMS = 617, "list the rooms; its end";
    ROOM_ENTRY = 618, "one room: name members topic";
    QUEUE_LIMIT = 619, "the sharer's queue is full: nick \"file\" limit";
    QUEUE_LIMITED = 620, "the sharer's queue is full: nick \"file\" size limit";
    MOTD = 621, "a line of the message of the day";
    MUZZLE = 622, "forbid a user to speak: nick \"reason\"";
    UNMUZZLE = 623, "let a user speak again: nick";
    UNNUKE = 624, "restore a registration";
    SET_LINK = 625, "change a user's link: nick link";
    PORT_ERROR = 626, "the data port cannot be reached: nick";
    OPERATORS_SAY = 627, "to all operators: text";
    ANNOUNCE = 628, "to everybody: text";
    BANNED_USERS = 629, "list banned nicks";
    BROWSE_DIRECT = 640, "ask to browse directly: nick";
    BROWSE_DIRECT_ACK = 641, "connect there: nick ip port";
    BROWSE_DIRECT_ERROR = 642, "cannot be browsed directly: nick text";
    MY_LINK = 700, "change one's link";
    MY_PASSWORD = 701, "change one's password";
    MY_EMAIL = 702, "change one's email";
    MY_PORT = 703, "change one's data port";
    NICK_TRIED = 748, "somebody tried to log in with your nick";
    SERVER_PING = 750, "are you there?";
    PING = 751, "ping a user: nick";
    PONG = 752, "answer to a ping: nick";
    SET_PASSWORD = 753, "change a user's password: nick password";
    KICK = 829, "remove from a room: room nick";
    ROOM_LEVEL = 823, "the least level in a room: room level";
    EMOTE = 824, "an action in a room: room \"text\"";
    ROOM_LIMIT = 826, "members of a room at most: room number";
    ROOM_USERS = 830, "list a room's members; its end";
    ROOM_USER = 825, "one member: room nick files link";
    USAGE = 10_115, "statistics of the server";
    LINK_HELLO = 20_001, "a hub: \"name\" nonce";
    LINK_PROOF = 20_002, "a hub knows the secret: proof";
    LINK_HUBS = 20_003, "hubs known to a hub: \"name\", repeated";
    LINK_HUB_UP = 20_004, "a hub was linked further on: \"name\"";
    LINK_HUB_DOWN = 20_005, "a hub was lost further on: \"name\"";
    LINK_USER = 20_006, "a user of a linked hub: nick \"hub\" ip port link level \"client\"";
    LINK_GONE = 20_007, "a user of a linked hub left: nick";
    LINK_STATS = 20_008, "what is shared behind a link: files bytes";
    LINK_AS = 20_009, "a user of a linked hub asks: nick type data";
    LINK_TO = 20_010, "for a user of a linked hub: nick type data";
    SHARE_OTHER = 10_300, "share a file that is not MP3: \"file\" size md5 type";
    SHARE_FOLDER = 870, "share files of one folder: \"dir\" then \"file\" md5 size bitrate frequency seconds, repeated";
}
