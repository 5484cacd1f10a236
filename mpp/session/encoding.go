package session

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
)

// encoding is a client encoding that is converted at the client's edge: inside,
// everything is UTF-8. A nil *encoding converts nothing. It does not change
// once it is made and may be used by any number of goroutines.
//
// ASCII is the same in all of PostgreSQL's encodings, so only bytes with the
// high bit begin a character that is looked up. The tables are PostgreSQL's.
type encoding struct {
	name   string // as PostgreSQL spells it
	layout layout
	to     []uint32          // a character's bytes, the first highest, by code point; 0: it has none
	from   []uint16          // code points by a code of one or two bytes; 0: it is none
	long   map[uint32]uint16 // the same for codes of three and four bytes
}

// layout says how many bytes a character has.
type layout struct {
	// length is that of the character that begins with b, which is not empty,
	// has the high bit and may be cut short.
	length func(b []byte) int
	// valid says whether a whole character's bytes can be one.
	valid func(c []byte) bool
}

// decode appends what a client sent to dst, in UTF-8.
func (e *encoding) decode(dst, src []byte) ([]byte, error) {
	for i := 0; i < len(src); {
		n := asciiLength(src[i:])
		dst = append(dst, src[i:i+n]...)
		if i += n; i == len(src) {
			break
		}
		n = e.layout.length(src[i:])
		if n > len(src)-i || !e.layout.valid(src[i:i+n]) {
			return dst, errInvalid(e.name, src[i:min(i+n, len(src))])
		}
		r, ok := e.rune(src[i : i+n])
		if !ok {
			return dst, errUntranslatable(src[i:i+n], e.name, "UTF8")
		}
		dst = utf8.AppendRune(dst, r)
		i += n
	}
	return dst, nil
}

// encode appends what is for a client to dst, in its encoding.
func (e *encoding) encode(dst, src []byte) ([]byte, error) {
	for i := 0; i < len(src); {
		n := asciiLength(src[i:])
		dst = append(dst, src[i:i+n]...)
		if i += n; i == len(src) {
			break
		}
		r, n := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && n <= 1 {
			return dst, invalidUTF8(src[i:]) // of an SQL_ASCII database
		}
		c := e.code(r)
		if c == 0 {
			return dst, errUntranslatable(src[i:i+n], "UTF8", e.name)
		}
		dst = appendCode(dst, c)
		i += n
	}
	return dst, nil
}

// encodeLossy is encode with question marks for what has no equivalent.
func (e *encoding) encodeLossy(s string) string {
	var dst []byte
	for _, r := range s {
		if c := e.code(r); r < utf8.RuneSelf {
			dst = append(dst, byte(r))
		} else if c != 0 {
			dst = appendCode(dst, c)
		} else {
			dst = append(dst, '?')
		}
	}
	return string(dst)
}

// GB18030's codes of the characters beyond the first plane are in their order.
const (
	firstPlane2 = 0x10000
	gb18030Base = ((0x90-0x81)*10*126 + 0) * 10 // 0x90308130
)

// code is a character's code, 0 when it has none.
func (e *encoding) code(r rune) uint32 {
	if r < firstPlane2 {
		return e.to[r]
	}
	if e.name != "GB18030" {
		return 0
	}
	n := uint32(r) - firstPlane2 + gb18030Base
	return (0x81+n/12600)<<24 | (0x30+n/1260%10)<<16 | (0x81+n/10%126)<<8 | (0x30 + n%10)
}

// rune is the character of a valid code.
func (e *encoding) rune(c []byte) (rune, bool) {
	var code uint32
	for _, b := range c {
		code = code<<8 | uint32(b)
	}
	if len(c) <= 2 {
		r := e.from[code]
		return rune(r), r != 0
	}
	if r, ok := e.long[code]; ok {
		return rune(r), true
	}
	if e.name == "GB18030" {
		n := ((uint32(c[0]-0x81)*10+uint32(c[1]-0x30))*126+uint32(c[2]-0x81))*10 + uint32(c[3]-0x30)
		if r := n - gb18030Base + firstPlane2; n >= gb18030Base && r <= utf8.MaxRune {
			return rune(r), true
		}
	}
	return 0, false
}

func appendCode(dst []byte, c uint32) []byte {
	for shift := 24; shift >= 0; shift -= 8 {
		if b := byte(c >> shift); c>>shift != 0 {
			dst = append(dst, b)
		}
	}
	return dst
}

// asciiLength is the number of ASCII bytes that b begins with.
func asciiLength(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if binary.NativeEndian.Uint64(b[i:])&0x8080808080808080 != 0 {
			break
		}
	}
	for i < len(b) && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

func hexBytes(b []byte) string {
	var s strings.Builder
	for i, c := range b {
		if i > 0 {
			s.WriteByte(' ')
		}
		fmt.Fprintf(&s, "0x%02x", c)
	}
	return s.String()
}

func errInvalid(enc string, c []byte) *pgconn.PgError {
	return sqlError("22021", "invalid byte sequence for encoding %q: %s", enc, hexBytes(c))
}

// invalidUTF8 is the error for text that is not UTF-8, and begins with what is
// not.
func invalidUTF8(b []byte) *pgconn.PgError {
	n := 1
	switch {
	case b[0]&0xe0 == 0xc0:
		n = 2
	case b[0]&0xf0 == 0xe0:
		n = 3
	case b[0]&0xf8 == 0xf0:
		n = 4
	}
	return errInvalid("UTF8", b[:min(n, len(b))])
}

// checkUTF8 refuses text that is not UTF-8.
func checkUTF8(s string) error {
	if utf8.ValidString(s) {
		return nil
	}
	for i, r := range s {
		if r != utf8.RuneError {
			continue
		}
		if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
			return invalidUTF8([]byte(s[i:min(i+4, len(s))]))
		}
	}
	return nil
}

func errUntranslatable(c []byte, from, to string) *pgconn.PgError {
	return sqlError("22P05", "character with byte sequence %s in encoding %q has no equivalent in encoding %q", hexBytes(c), from, to)
}

// layouts are those of the encodings that have characters of several bytes and
// are converted. JIS X 0213's, of which some codes are two characters, are not.
var layouts = map[string]layout{
	"EUC_CN":  {lengthEUCCN, pairIn(0xa1, 0xfe)},
	"EUC_KR":  {euc, pairIn(0xa1, 0xfe)},
	"JOHAB":   {euc, func(c []byte) bool { return eachIn(0xa1, 0xfe)(c[1:]) }},
	"EUC_JP":  {euc, validEUCJP},
	"EUC_TW":  {lengthEUCTW, validEUCTW},
	"SJIS":    {lengthSJIS, validSJIS},
	"BIG5":    {two, noZero},
	"GBK":     {two, noZero},
	"UHC":     {two, noZero},
	"GB18030": {lengthGB18030, validGB18030},
}

// singleByte is the layout of all others.
var singleByte = layout{func([]byte) int { return 1 }, func([]byte) bool { return true }}

func two([]byte) int { return 2 }

func noZero(c []byte) bool { return c[1] != 0 }

func in(b, low, high byte) bool { return low <= b && b <= high }

func eachIn(low, high byte) func([]byte) bool {
	return func(c []byte) bool {
		for _, b := range c {
			if !in(b, low, high) {
				return false
			}
		}
		return true
	}
}

func pairIn(low, high byte) func([]byte) bool {
	return func(c []byte) bool { return len(c) == 2 && in(c[0], low, high) && in(c[1], low, high) }
}

// The single shifts of EUC, which choose another character set.
const ss2, ss3 = 0x8e, 0x8f

func euc(b []byte) int {
	if b[0] == ss3 {
		return 3
	}
	return 2
}

func lengthEUCCN(b []byte) int {
	if b[0] == ss2 || b[0] == ss3 {
		return 3 // there is none
	}
	return 2
}

func validEUCJP(c []byte) bool {
	switch c[0] {
	case ss2:
		return in(c[1], 0xa1, 0xdf)
	case ss3:
		return eachIn(0xa1, 0xfe)(c[1:])
	}
	return eachIn(0xa1, 0xfe)(c)
}

func lengthEUCTW(b []byte) int {
	switch b[0] {
	case ss2:
		return 4
	case ss3:
		return 3
	}
	return 2
}

func validEUCTW(c []byte) bool {
	switch c[0] {
	case ss2:
		return in(c[1], 0xa1, 0xa7) && eachIn(0xa1, 0xfe)(c[2:])
	case ss3:
		return false
	}
	return in(c[1], 0xa1, 0xfe)
}

func lengthSJIS(b []byte) int {
	if in(b[0], 0xa1, 0xdf) {
		return 1
	}
	return 2
}

func validSJIS(c []byte) bool {
	if len(c) == 1 {
		return true
	}
	return (in(c[0], 0x81, 0x9f) || in(c[0], 0xe0, 0xfc)) && (in(c[1], 0x40, 0x7e) || in(c[1], 0x80, 0xfc))
}

func lengthGB18030(b []byte) int {
	if len(b) > 1 && in(b[1], '0', '9') {
		return 4
	}
	return 2
}

func validGB18030(c []byte) bool {
	if !in(c[0], 0x81, 0xfe) {
		return false
	}
	if len(c) == 4 {
		return in(c[2], 0x81, 0xfe) && in(c[3], '0', '9')
	}
	return in(c[1], 0x40, 0x7e) || in(c[1], 0x80, 0xfe)
}
