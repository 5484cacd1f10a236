package session

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/mpp/cdbhash"
	"github.com/trunkline-db/trunkline/mpp/dispatch"
	"github.com/trunkline-db/trunkline/mpp/plan"
)

// linePlacer cuts COPY's text format into lines and places each.
type linePlacer struct {
	opt    directOptions
	r      *relation
	put    func(seg int, data []byte) error
	ask    func(oid uint32, text []byte) ([]byte, error) // for a value's binary form
	n      int                                           // segments
	next   int                                           // for random placement
	rest   []byte
	crlf   bool // lines end so
	lines  int  // so far
	sent   []lineLog
	hasher *cdbhash.Hasher
	oids   []uint32
	keys   [][]byte
	bin    [][]byte
	buf    []byte
	ended  bool
}

func (p *linePlacer) open() error {
	p.sent = make([]lineLog, p.n)
	if p.r.Policy.Kind != plan.Hashed {
		return nil
	}
	for _, k := range p.r.Policy.Keys {
		p.oids = append(p.oids, p.r.columns[k].hashType())
	}
	p.keys, p.bin = make([][]byte, len(p.oids)), make([][]byte, len(p.oids))
	var err error
	p.hasher, err = cdbhash.NewHasher(p.oids)
	return err
}

// write takes what the client sent: any cut of the stream.
func (p *linePlacer) write(data []byte) error {
	if p.r.Policy.Kind == plan.Replicated {
		for seg := range p.n {
			if err := p.put(seg, data); err != nil {
				return err
			}
		}
		return nil
	}
	from := len(p.rest)
	if from > 0 {
		p.rest = append(p.rest, data...)
		data = p.rest
	}
	for {
		end := lineEnd(data, from)
		if end < 0 {
			break
		}
		if err := p.line(data[:end+1]); err != nil {
			return err
		}
		data, from = data[end+1:], 0
	}
	p.rest = append(p.rest[:0], data...)
	return nil
}

func (p *linePlacer) end() error {
	if len(p.rest) == 0 || p.r.Policy.Kind == plan.Replicated {
		return nil
	}
	if p.crlf {
		p.rest = append(p.rest, '\r')
	}
	return p.line(append(p.rest, '\n'))
}

// lineEnd finds the newline that ends the first line, which is not before
// from; one behind a backslash is data.
func lineEnd(b []byte, from int) int {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return -1
		}
		i += from
		slashes := 0
		for j := i - 1; j >= 0 && b[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
		from = i + 1
	}
}

// send gives a line to a segment.
func (p *linePlacer) send(seg int, line []byte) error {
	p.sent[seg].add(p.lines)
	return p.put(seg, line)
}

// at says in which line a value is that the local server refused.
func (p *linePlacer) at(err error) error {
	said := *pgError(err)
	said.Where = fmt.Sprintf("COPY %s, line %d", p.r.Name, p.lines)
	return &said
}

// where turns the line number in a segment's error, which counts what the
// segment was sent, into the client's.
func (p *linePlacer) where(err error) error {
	var de *dispatch.Error
	if p.r.Policy.Kind == plan.Replicated || !errors.As(err, &de) || de.Seg < 0 || de.Seg >= p.n {
		return err
	}
	m := copyLine.FindStringSubmatchIndex(de.Where)
	if m == nil {
		return err
	}
	n, _ := strconv.Atoi(de.Where[m[2]:m[3]])
	said := *de.PgError
	if line, ok := p.sent[de.Seg].at(n); ok {
		said.Where = de.Where[:m[2]] + strconv.Itoa(line) + de.Where[m[3]:]
	} else {
		said.Where = ""
	}
	return &said
}

var copyLine = regexp.MustCompile(`^COPY .*, line (\d+)`)

// lineLog remembers which of the client's lines the last ones of a segment
// were: a segment's error comes while it has been sent little more.
type lineLog struct {
	last  []int // line number of the n-th line at n%logLength
	count int
}

// logLength is more lines than fit the buffers on the way to a segment.
const logLength = 1 << 18

func (l *lineLog) add(line int) {
	if l.count < logLength {
		l.last = append(l.last, line)
	} else {
		l.last[l.count%logLength] = line
	}
	l.count++
}

// at returns the client's number of the n-th line, counted from 1.
func (l *lineLog) at(n int) (int, bool) {
	if n < 1 || n > l.count || n <= l.count-logLength {
		return 0, false
	}
	return l.last[(n-1)%logLength], true
}

func (p *linePlacer) line(line []byte) error {
	if p.ended {
		return nil
	}
	p.lines++
	body := line[:len(line)-1]
	if n := len(body); n > 0 && body[n-1] == '\r' {
		body, p.crlf = body[:n-1], true
	}
	if len(body) == 2 && body[0] == '\\' && body[1] == '.' {
		p.ended = true
		return nil
	}
	if p.hasher == nil {
		p.next = (p.next + 1) % p.n
		return p.send(p.next, line)
	}
	clear(p.keys)
	for at, rest := 0, body; ; at++ {
		i := fieldEnd(rest, p.opt.delimiter)
		f := rest[:i]
		for k, want := range p.opt.fields {
			if want == at && string(f) != p.opt.null {
				p.keys[k] = f
			}
		}
		if i == len(rest) {
			break
		}
		rest = rest[i+1:]
	}
	for k, f := range p.keys {
		if f == nil {
			p.bin[k] = nil
			continue
		}
		p.buf = unescape(p.buf[:0], f)
		v, ok := cdbhash.FromText(p.oids[k], p.buf, p.bin[k][:0])
		if !ok {
			var err error
			if v, err = p.ask(p.oids[k], p.buf); err != nil {
				return p.at(err)
			}
		}
		p.bin[k] = v
	}
	seg, err := p.hasher.Segment(p.bin, p.n)
	if err != nil {
		return err
	}
	return p.send(seg, line)
}

// fieldEnd finds the delimiter that ends the first field; one behind a
// backslash is data.
func fieldEnd(b []byte, delimiter byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case delimiter:
			return i
		}
	}
	return len(b)
}

// unescape undoes the backslashes of COPY's text format.
func unescape(dst, f []byte) []byte {
	for i := 0; i < len(f); i++ {
		c := f[i]
		if c != '\\' || i+1 == len(f) {
			dst = append(dst, c)
			continue
		}
		i++
		switch f[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'v':
			dst = append(dst, '\v')
		case 'x':
			v, n := digits(f[i+1:], 16, 2)
			if n == 0 {
				dst = append(dst, 'x')
			} else {
				dst = append(dst, v)
				i += n
			}
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v, n := digits(f[i:], 8, 3)
			dst = append(dst, v)
			i += n - 1
		default:
			dst = append(dst, f[i])
		}
	}
	return dst
}

func digits(b []byte, base, limit int) (v byte, n int) {
	for n < limit && n < len(b) {
		d := strings.IndexByte("0123456789abcdef", b[n]|0x20)
		if b[n] <= '9' {
			d = int(b[n]) - '0'
		}
		if d < 0 || d >= base {
			break
		}
		v = v*byte(base) + byte(d)
		n++
	}
	return v, n
}
