"""Bodies and timestamps that look for a disagreement, reproducible from a seed."""

import json
import random
import struct

VENDORS = ["stripe", "Adyen", "GITHUB", "Shopify", "acme-pay", "ΟΔΟΣ", "İstanbul", "ẞtraße", " x "]
TYPES = ["payment.succeeded", "invoice.paid", "AUTHORISATION", "заказ.создан", "a|b", "😀"]
TIMES = ["2026-05-06T12:34:56Z", "2024-02-29T00:00:00.5+05:30", "Tue, 05 Mar 2024 10:11:12 GMT"]
SPACES = ["", "", "", " ", "\n", "\t", "\r\n  "]

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov",
          "Dec", "January", "february", "MARCH", "June", "September", "december"]
WEEKDAYS = ["Mon", "Tuesday", "wed", "Thu", "FRIDAY", "Sat", "sunday", "Tues"]
ZONES = ["Z", "z", "UTC", "GMT", "utc", "EST", "BRST", "+00:00", "-00:00", "+0530", "+05:30", "-08",
         "+1", "-3:30", "+24:00", "+23:59", "UTC+3", "GMT-03:00", "BRST+3", "-0300 (BRST)",
         "+0000 (UTC)", "-0300 (UTC)", "+0100 (CET)", "(UTC)", "+99:99", "+12345", "INF", "NAN"]
WORDS = [" ", "  ", ".", ",", ";", "-", "/", "'", "at", "on", "and", "ad", "m", "t", "T", "of", "st",
         "nd", "rd", "th", "h", "hour", "hours", "minute", "minutes", "s", "second", "seconds", "am",
         "pm", "AM", "a", "p", "P.M.", "a.m.", ":", "+", "(", ")", "\t", "\0", "\u00a0", "\x1f",
         "１２", "٣", "²", "①", "é", "\u212a", "€", " of ", "inf", "nan", "1_0", "e5", "_", "#"]


def cases(seed, bodies, timestamps):
    pick = random.Random(seed)
    families = [numbers, strings, keys, structure, fields, mutated]
    for index in range(bodies):
        family = families[index % len(families)]
        yield family.__name__, family(pick)
    for _ in range(timestamps):
        text = timestamp(pick)
        yield "timestamps", envelope(pick, [], created_at=json.dumps(text))


def envelope(pick, members, **given):
    """An envelope of JSON texts, its members shuffled among the given ones."""
    parts = {
        "vendor": json.dumps(pick.choice(VENDORS)),
        "event_type": json.dumps(pick.choice(TYPES), ensure_ascii=pick.random() < 0.5),
        "created_at": json.dumps(pick.choice(TIMES)),
    } | given
    texts = [(json.dumps(name), text) for name, text in parts.items() if text is not None]
    texts += members
    pick.shuffle(texts)
    space = lambda: pick.choice(SPACES)
    inner = (space() + ",").join(f"{space()}{name}{space()}:{space()}{text}" for name, text in texts)
    return f"{space()}{{{inner}{space()}}}{space()}".encode("utf-8", "surrogatepass")


def numbers(pick):
    return envelope(pick, [(f'"n{i}"', number(pick)) for i in range(pick.randrange(1, 5))])


def number(pick):
    digits = lambda most: "".join(pick.choice("0123456789") for _ in range(pick.randrange(1, most)))
    sign = pick.choice(["", "-"])
    match pick.randrange(14):
        case 0:
            bits = struct.pack("<Q", pick.getrandbits(64))
            return repr(struct.unpack("<d", bits)[0])
        case 1:
            return sign + repr(pick.randrange(10**7) / 10 ** pick.randrange(6))
        case 2:
            return sign + str(pick.randrange(10 ** pick.randrange(1, 40)))
        case 3:
            return sign + str(pick.randrange(1, 10)) + digits(30) + "." + digits(40)
        case 4:
            exponent = pick.choice(["e", "E"]) + pick.choice(["", "+", "-"]) + digits(4)
            return sign + str(pick.randrange(10)) + pick.choice(["", "." + digits(20)]) + exponent
        case 5:  # halfway between two doubles, and just beside it
            half = pick.randrange(2**53, 2**54) | 1
            return f"{half}.{'0' * pick.randrange(1, 60)}{pick.choice('01')}"
        case 6:  # two shortest forms are equally near
            return sign + repr(pick.randrange(2**50, 2**53) / pick.choice([2, 4, 8]))
        case 7:
            return pick.choice(["-0", "-0.0", "0.0", "0e5", "-0E-5", "1e400", "-1e400", "1e-400",
                                "1e16", "1e15", "9999999999999998.0", "1e-4", "1e-5", "0.0001",
                                "123456789012345680.0", "5e-324", "1.7976931348623157e308"])
        case 8:
            return pick.choice(["01", "1.", ".5", "+1", "1e", "1e+", "--1", "0x10", "1_000", "NaN",
                                "Infinity", "-Infinity", "-", "1.5.2", "٣", "1E5x"])
        case 9:
            return sign + "1" + "0" * (pick.choice([4298, 4299, 4300, 4301]))
        case 10:
            zeros = pick.randrange(10_000, 200_000)
            return f"{sign}0.{'0' * zeros}{digits(25)}e{zeros + pick.randrange(-330, 330)}"
        case 11:
            zeros = pick.randrange(10_000, 200_000)
            return f"{sign}{pick.randrange(1, 10)}{'0' * zeros}{digits(9)}e-{zeros + pick.randrange(-330, 330)}"
        case 12:
            return sign + digits(2) + "e" + pick.choice(["", "-", "+"]) + digits(40)
        case _:
            return sign + str(pick.randrange(1, 10)) + digits(1200) + "." + digits(900)


def strings(pick):
    return envelope(pick, [(f'"s{i}"', string(pick)) for i in range(pick.randrange(1, 4))])


def string(pick):
    return '"' + "".join(fragment(pick) for _ in range(pick.randrange(8))) + '"'


def fragment(pick):
    match pick.randrange(12):
        case 0:
            return pick.choice(["\\n", "\\t", "\\r", "\\b", "\\f", '\\"', "\\\\", "\\/"])
        case 1:
            hexadecimal = f"{pick.randrange(0x10000):04x}"
            return "\\u" + "".join(pick.choice([c, c.upper()]) for c in hexadecimal)
        case 2:
            return pick.choice(["\\ud83d\\ude00", "\\uD834\\uDD1E", "\\ud83d", "\\ude00",
                                "\\ud83d\\ud83d\\ude00", "\\ud83dx", "\\ud83d\\n", "\\udbff\\udfff"])
        case 3:
            return chr(pick.choice([pick.randrange(0x20, 0xD800), pick.randrange(0xE000, 0x110000)]))
        case 4:
            return pick.choice(["\x7f", "\u2028", "\ufeff", "é", "日本", "😀", "\x80", "\uffff"])
        case 5:
            if pick.random() < 0.1:
                return pick.choice(["\n", "\t", "\0", "\x1f", '"', "\\x", "\\u12", "\\u12g4", "\\",
                                    "\\ud83d\\u12", "\\U0041", "\ud800"])
            return "\\u007f"
        case _:
            return "".join(chr(pick.randrange(0x20, 0x7F)) for _ in range(pick.randrange(6)))\
                .replace("\\", "").replace('"', "")


def keys(pick):
    names = [string(pick) for _ in range(pick.randrange(1, 7))]
    names += [pick.choice(names) for _ in range(pick.randrange(3))]
    names += pick.sample(['"vendor"', '"\\u0076endor"', '"created_at"', '"event_type"', '"a"', '"A"',
                          '"\\ud83d"', '"\ue000"', '"😀"', '"\\ud83d\\ude00"', '""',
                          '"$serde_json::private::Number"', '"$serde_json::private::RawValue"'],
                         pick.randrange(4))
    values = [json.dumps(pick.choice(["x", "2024-05-05", 1, None, {"b": 1, "a": 2}])) for _ in names]
    return envelope(pick, list(zip(names, values)))


def structure(pick):
    match pick.randrange(8):
        case 0:
            depth = pick.choice([1, 5, 100, 500, 930, 1001, 1002, 5000])
            opening = [pick.choice(["[", '{"a":']) for _ in range(depth)]
            closing = ["]" if text == "[" else "}" for text in reversed(opening)]
            if pick.random() < 0.1:
                closing = closing[: pick.randrange(len(closing) + 1)]
            return envelope(pick, [('"x"', "".join(opening) + "1" + "".join(closing))])
        case 1:
            return pick.choice([b"", b"[]", b"null", b"1", b'"x"', b"{}", b" ", b"\xef\xbb\xbf{}",
                                b"{}{}", b"true", b"\xff", b"{\0}", '{"a":1}'.encode("utf-16"),
                                b"\x0c{}", b"{}\xc2\xa0"])
        case 2:
            text = pick.choice(["nul", "True", "tru", "nulll", "[1,]", "[,1]", '{"a"}', "{'a':1}",
                                '{"a":1,}', "{,}", "[1 2]", "//", "undefined", "]", "{1:2}", ""])
            return envelope(pick, [('"x"', text)])
        case 3:
            return envelope(pick, []) + pick.choice([b"x", b"{}", b",", b"\0", b"]", b"\xa0"])
        case _:
            return envelope(pick, [('"x"', tree(pick, 4)), ('"y"', tree(pick, 2))])


def tree(pick, depth):
    if depth == 0 or pick.random() < 0.3:
        scalars = ["true", "false", "null", "0", "[]", "{}", number(pick)[:40], string(pick)]
        return pick.choice(scalars)
    inner = [tree(pick, depth - 1) for _ in range(pick.randrange(4))]
    if pick.random() < 0.5:
        return "[" + pick.choice([",", ", ", "\n,"]).join(inner) + "]"
    return "{" + ",".join(f"{string(pick)}:{value}" for value in inner) + "}"


def fields(pick):
    name = pick.choice(["vendor", "event_type", "created_at"])
    value = pick.choice([None, '""', "0", "false", "null", "[]", "{}", "1", "true", "[1]", '{"a":1}',
                         "-0.0", "1e-400", '" "', '"\\u0000"', '"\\ud800"', '"x\\udfff"',
                         '"\\ud83d\\ude00"'])
    if pick.random() < 0.6:
        value = json.dumps(timestamp(pick) if name == "created_at" else word(pick))
    return envelope(pick, [], **{name: value})


def word(pick):
    letters = ["Σ", "σ", "ς", "A", "a", ".", "'", "\u0301", "\u00ad", "İ", "ẞ", "Ǆ", "ᾈ", "\u2126", "\u212a", "Ა", "\u0295"]
    one = lambda: chr(pick.choice([pick.randrange(0x20, 0xD800), pick.randrange(0xE000, 0x20000)]))
    return "".join(pick.choice([pick.choice(letters), one()]) for _ in range(pick.randrange(1, 7)))


def awkward_words():
    """Every code point in the places where it can change how its neighbours are lowered."""
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            char = chr(code)
            yield f"{char}|AΣ{char}|AΣ{char}A|{char}Σ|A{char}Σ"


def mutated(pick):
    source = pick.choice([numbers, strings, keys, structure, fields])
    body = bytearray(source(pick) if pick.random() < 0.7 else
                     envelope(pick, [], created_at=json.dumps(timestamp(pick))))
    for _ in range(pick.randrange(1, 4)):
        at = pick.randrange(len(body) + 1)
        match pick.randrange(4):
            case 0:
                body[at:at + 1] = b""
            case 1:
                body[at:at] = bytes([pick.randrange(256)])
            case 2:
                body[at:at + 1] = pick.choice(b'{}[]",:\\0123456789eE.+- \n').to_bytes(1, "big")
            case 3:
                end = at + pick.randrange(12)
                body[at:at] = body[at:end]
    return bytes(body)


def timestamp(pick):
    match pick.randrange(10):
        case 0:
            return soup(pick)
        case 1 | 2:
            return mutate_text(pick, written(pick))
        case 3:
            return written(pick) + pick.choice(["", " ", ".", ","]) + soup(pick)[:12]
        case _:
            return written(pick)


def soup(pick):
    piece = lambda: pick.choice([
        pick.choice(WORDS), pick.choice(WORDS), pick.choice(MONTHS), pick.choice(WEEKDAYS),
        pick.choice(ZONES), str(pick.randrange(10 ** pick.randrange(1, 9))), decimal(pick),
    ])
    return "".join(piece() for _ in range(pick.randrange(1, 12)))


def decimal(pick):
    if pick.random() < 0.05:
        return f"{pick.randrange(60)}.{pick.choice('0359') * pick.randrange(1, 45)}"
    if pick.random() < 0.02:
        return str(pick.randrange(10 ** pick.randrange(20, 40))) + pick.choice(["", ".5"])
    return f"{pick.randrange(60)}{pick.choice('.,')}{pick.randrange(10 ** pick.randrange(1, 8))}"


def written(pick):
    """A date and mostly a time, in one of many notations, at times out of range."""
    year = pick.choice([pick.randrange(1970, 2100), pick.randrange(1970, 2100), pick.randrange(10000)])
    month, day = pick.randrange(1, 13), pick.randrange(1, 32)
    if pick.random() < 0.03:
        month, day = pick.randrange(100), pick.randrange(100)
    name, weekday = pick.choice(MONTHS), pick.choice(WEEKDAYS)
    two = lambda value: f"{value:02}" if pick.random() < 0.8 else str(value)
    y = f"{year:04}" if pick.random() < 0.95 else f"{year % 100:02}"
    separator = pick.choice(["-", "/", ".", " ", "-", "-"])
    suffix = pick.choice(["st", "nd", "rd", "th", ""])
    date = pick.choice([
        f"{y}-{month:02}-{day:02}", f"{y}-{month:02}-{day:02}", f"{y}{month:02}{day:02}",
        separator.join([y, two(month), two(day)]), separator.join([two(month), two(day), y]),
        separator.join([two(day), name, y]), separator.join([name, two(day), y]),
        separator.join([y, name, two(day)]), separator.join([two(day), y, name]),
        f"{weekday}, {day:02} {name} {y}", f"{weekday} {name} {day} {y}", f"{name} {day}{suffix}, {y}",
        f"{day}{suffix} of {name} {y}", f"{name} of {y}", f"{day} {name} of {y}", f"{day}{name}{y}",
        f"{y}-W{month:02}-{day % 7}", f"{y}-{month * 30:03}", f"{y}-{month:02}", f"{name} {y}",
        f"{weekday}", f"{y}", f"{year}{month:02}{day:02}{day:02}{month:02}", f"{month}/{day}",
        f"{y} {two(day)} {name} of {dropped(pick)}",
    ])
    between = pick.choice(["T", "T", " ", " ", "t", ", ", " at ", "", "  ", "-", "\t"])
    hour, minute, second = pick.randrange(24), pick.randrange(60), pick.randrange(60)
    if pick.random() < 0.03:
        hour, minute, second = pick.randrange(26), pick.randrange(62), pick.randrange(62)
    fraction = str(pick.randrange(10 ** pick.randrange(1, 10)))
    half = pick.choice(["am", "pm", " AM", " PM", "a", "p", " a.m.", " P"])
    time = pick.choice([
        f"{hour:02}:{minute:02}:{second:02}", f"{hour:02}:{minute:02}:{second:02}",
        f"{hour:02}:{minute:02}:{second:02}.{fraction}", f"{hour:02}:{minute:02}:{second:02},{fraction}",
        f"{hour:02}:{minute:02}", f"{hour:02}", f"{hour:02}{minute:02}",
        f"{hour:02}{minute:02}{second:02}", f"{hour:02}{minute:02}{second:02}.{fraction}",
        f"{hour}h{minute}m{second}s", f"{hour}h{minute}", f"{hour} h {minute} m {second}.{fraction} s",
        f"{hour}h{minute}m{decimal(pick)}", f"{hour}.{fraction}h", f"{hour}:{minute}.{fraction}",
        f"{hour % 13}{half}", f"{hour % 13}:{minute:02}{half}", f"{hour % 13}:{minute:02}:{second:02}{half}",
        f"{hour} hours {minute} minutes {second} seconds", f"{minute}m{second}s", "", "",
    ])
    zone = pick.choice(["", "", pick.choice(ZONES), pick.choice(ZONES), " " + pick.choice(ZONES),
                        f"{pick.choice('+-')}{pick.randrange(15):02}:{pick.choice([0, 15, 30, 45]):02}"])
    if pick.random() < 0.1:
        return time + zone + pick.choice([" ", ", ", " on "]) + date
    return date + between + time + zone


def dropped(pick):
    """The text after `May of`: dateutil drops its first token unread unless that is digits."""
    ranges = [(0x80, 0x800), (0x800, 0xD800), (0xE000, 0x20000)]
    char = chr(pick.randrange(*pick.choice(ranges)))
    piece = lambda: pick.choice([char, pick.choice(WORDS), str(pick.randrange(100))])
    return piece() + piece() + piece()


def mutate_text(pick, text):
    for _ in range(pick.randrange(1, 3)):
        at = pick.randrange(len(text) + 1)
        match pick.randrange(4):
            case 0:
                text = text[:at] + text[at + 1:]
            case 1:
                text = text[:at] + pick.choice(WORDS + list("0123456789:.-+TZ ")) + text[at:]
            case 2:
                text = text[:at] + pick.choice("0123456789") + text[at + 1:]
            case 3:
                text = text[:at] + text[at:at + 4] + text[at:]
    return text
