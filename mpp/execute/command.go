package execute

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/trunkline-db/trunkline/motion"
)

// Marker starts the text of a Query message that holds a Command instead of
// SQL. No SQL text starts with a control character.
const Marker = "\x01slice "

// The operations of a Command.
const (
	// OpOpen parses and binds every slice, each with its own snapshot, and
	// answers with one row "opened" when all are bound; then, when Run is
	// given, it goes on as OpRun does. With Run and a single slice the slice
	// is closed at the end too, so that the common query is one round trip.
	OpOpen = "open"
	// OpRun executes one open slice into a motion.
	OpRun = "run"
	// OpClose closes every open slice. Outside a transaction block the
	// implicit transaction of the slices ends here.
	OpClose = "close"
)

// Command is what the dispatcher asks of a QE about the slices of a statement.
type Command struct {
	Op string `json:"op"`
	// Begin is SQL that starts a transaction block; it runs before the slices
	// are opened (OpOpen only). Empty for none.
	Begin string `json:"begin,omitempty"`
	// Command is the session's command counter, a part of the motion's name.
	Command uint32 `json:"-"`
	// Slices to open (OpOpen only).
	Slices []Slice `json:"slices,omitempty"`
	// Run says which slice to run and whereto (OpRun; optional in OpOpen).
	Run *Run `json:"run,omitempty"`
	// Short says that the one slice to open and run takes little time: there is no
	// answer before the end (OpOpen only).
	Short bool `json:"short,omitempty"`
	// Idle says that nobody knows when the slices will run, which a cursor reads: the
	// time until then is not for statement_timeout (OpOpen without Run only).
	Idle bool `json:"idle,omitempty"`
}

// Slice is one slice of a statement: SQL for the local PostgreSQL whose result
// is sent through a motion.
type Slice struct {
	Index         int16   `json:"index"`
	SQL           string  `json:"sql"`
	Params        []Param `json:"params,omitempty"`
	ResultFormats []int16 `json:"resultFormats,omitempty"`
	// Prepared, if not 0, is the version of the catalog that SQL was made for. A
	// slice alone in its command need not be parsed again when the last one had
	// the same SQL and version.
	Prepared uint64 `json:"prepared,omitempty"`
	// Copy says that SQL is COPY … TO STDOUT. A tuple of the motion is then
	// the content of one CopyData message; otherwise it is the body of one
	// DataRow message. A copy slice takes its snapshot when it runs.
	Copy bool `json:"copy,omitempty"`
	// Out is the slice's motion when other executors receive it: it is opened
	// with the slice, and not again when that runs. Nil: Run has the motion.
	Out *Run `json:"out,omitempty"`
	// Inputs are motions that SQL reads by pg_catalog.gp_motion_recv. They are
	// received from the moment the slice is opened, whether it runs or not.
	Inputs []Input `json:"inputs,omitempty"`
	// Read is what pg_catalog.gp_owner_rows() in SQL may read; its argument
	// is the parameter after Params. Nil when SQL does not call it.
	Read *Read `json:"read,omitempty"`
	// Count says that the command tag has the bytes and packets of the slice's
	// motion before the rows: SELECT bytes packets rows.
	Count bool `json:"count,omitempty"`
	// Writes says that SQL changes rows and returns none. Such a slice has no
	// motion, so that Run names no receivers, and takes its snapshot when it
	// runs: what it reads should be its Inputs.
	Writes bool `json:"writes,omitempty"`
	// Data, of a slice that writes, is the token of the one of its inputs whose
	// rows, in binary form, are the data of SQL: COPY … FROM STDIN (FORMAT
	// binary). "": SQL is no COPY.
	Data string `json:"data,omitempty"`
}

// Read is the scan of one table with the rights of a role other than the
// session's: the owner of a view that the user reads. PostgreSQL checks that
// Owner may read Columns, or any column when there are none, and runs SQL as
// the superuser: it must be a plain scan that calls no function of a user's.
type Read struct {
	Owner   string   `json:"owner"`
	Schema  string   `json:"schema"`
	Table   string   `json:"table"`
	Columns []string `json:"columns,omitempty"`
	SQL     string   `json:"sql"`
	// Filtered says that the table's row-level security is seen to elsewhere.
	Filtered bool `json:"filtered,omitempty"`
}

// Param is one parameter of a slice's SQL. A nil Value is NULL.
type Param struct {
	OID    uint32 `json:"oid,omitempty"`
	Format int16  `json:"format,omitempty"`
	Value  []byte `json:"value"`
}

// Input is the receiving end of a motion that a slice reads.
type Input struct {
	Slice   int16  `json:"slice"` // the sending one
	Token   string `json:"token"` // by which the reading slice's SQL asks for the rows
	Columns int    `json:"columns"`
	// Again says that the slice may ask for the rows several times.
	Again bool `json:"again,omitempty"`
	// Styles are the values of DateStyle and IntervalStyle that the rows are
	// printed with; nil: PostgreSQL's defaults.
	Styles map[string]string `json:"styles,omitempty"`
	// Senders are the executors that send, as SendingEnd names them.
	Senders []motion.Peer `json:"senders"`
}

// Run names the slice to run and the receiving end of its motion. With more
// than one receiver every row is sent to all of them, or, with Keys, to the one
// that they hash to.
type Run struct {
	Slice     int16         `json:"slice"`
	RecvSlice int16         `json:"recvSlice"`
	Receivers []motion.Peer `json:"receivers,omitempty"`
	Keys      []Key         `json:"keys,omitempty"`
	// Binary says that the values of the keys are binary, else they are text.
	Binary bool `json:"binary,omitempty"`
}

// Key is a column of the key by which rows are redistributed, as a table would
// be distributed by it.
type Key struct {
	Column int    `json:"column"` // from 0
	OID    uint32 `json:"oid"`    // of its type
}

// Query returns the text of the Query message that carries c: Marker, the number
// of the command in decimal, a space and the rest of it in JSON.
func (c *Command) Query() (string, error) {
	var b bytes.Buffer
	b.WriteString(Marker)
	b.Write(strconv.AppendUint(nil, uint64(c.Command), 10))
	b.WriteByte(' ')
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		return "", err
	}
	return b.String(), nil
}

// ParseCommand decodes and checks the text of a Query message after Marker.
func ParseCommand(text []byte) (*Command, error) { return new(parser).parse(text) }

// parser parses the commands of a session. One that is the last one again, but for
// its number, as that of a small statement that is repeated, costs nothing.
type parser struct {
	text []byte // of last, without the number
	last Command
}

// longestKept is how many bytes of a command are kept.
const longestKept = 16 << 10

// parse is ParseCommand. What the result points to may be that of the next one too,
// and must not be changed but for the parameters of a slice with Read.
func (p *parser) parse(text []byte) (*Command, error) {
	number, rest, _ := bytes.Cut(text, []byte(" "))
	n, err := strconv.ParseUint(string(number), 10, 32)
	if err != nil {
		return nil, fmt.Errorf("slice command: its number: %w", err)
	}
	c := new(Command)
	if len(p.text) > 0 && bytes.Equal(rest, p.text) {
		*c = p.last
		c.Command = uint32(n)
		return c, nil
	}
	if err := json.Unmarshal(rest, c); err != nil {
		return nil, fmt.Errorf("slice command: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("slice command %q: %w", c.Op, err)
	}
	c.Command = uint32(n)
	p.text = p.text[:0]
	hasPass := slices.ContainsFunc(c.Slices, func(s Slice) bool { return s.Read != nil }) // becomes a parameter
	if len(rest) <= longestKept && !hasPass {
		p.text, p.last = append(p.text, rest...), *c
	}
	return c, nil
}

func (c *Command) check() error {
	switch c.Op {
	case OpOpen:
		if len(c.Slices) == 0 {
			return errors.New("no slices")
		}
		toOthers := false // the slice to run has its motion
		seen := make(map[int16]bool, len(c.Slices))
		for i := range c.Slices {
			s := &c.Slices[i]
			if seen[s.Index] {
				return fmt.Errorf("slice %d is there twice", s.Index)
			}
			seen[s.Index] = true
			toOthers = toOthers || s.Out != nil && c.Run != nil && c.Run.Slice == s.Index
			if bytes.IndexByte([]byte(s.SQL), 0) >= 0 {
				return fmt.Errorf("slice %d has a zero byte in its SQL", s.Index)
			}
			if s.Read != nil && s.Copy {
				return fmt.Errorf("slice %d is a COPY with parameters", s.Index)
			}
			if err := s.checkMotions(); err != nil {
				return fmt.Errorf("slice %d: %w", s.Index, err)
			}
			if len(s.Params) > 65534 || len(s.ResultFormats) > 65535 {
				return fmt.Errorf("slice %d has too many parameters or result formats", s.Index)
			}
		}
		if c.Run != nil && !seen[c.Run.Slice] {
			return fmt.Errorf("slice %d is to run but not among those to open", c.Run.Slice)
		}
		if c.Run != nil && len(c.Run.Receivers) == 0 && !toOthers {
			return fmt.Errorf("slice %d has no receivers", c.Run.Slice)
		}
		if c.Short && (c.Run == nil || len(c.Slices) > 1 || c.Slices[0].Copy) {
			return errors.New("short is for one slice that is run, and no COPY")
		}
		if c.Idle && c.Run != nil {
			return errors.New("idle is for slices that are not run")
		}
	case OpRun:
		if c.Run == nil {
			return errors.New("no slice to run")
		}
	case OpClose:
	default:
		return errors.New("unknown operation")
	}
	if c.Op != OpOpen && (len(c.Slices) > 0 || c.Begin != "") {
		return errors.New("slices are given but not opened")
	}
	if c.Run != nil {
		if err := c.Run.check(); err != nil {
			return fmt.Errorf("slice %d: %w", c.Run.Slice, err)
		}
	}
	if bytes.IndexByte([]byte(c.Begin), 0) >= 0 {
		return errors.New("zero byte in begin")
	}
	return nil
}

func (s *Slice) checkMotions() error {
	if s.Writes && (s.Copy || s.Out != nil || s.Read != nil || s.Count) {
		return errors.New("it writes and has rows to send")
	}
	if s.Data != "" && (!s.Writes || !slices.ContainsFunc(s.Inputs, func(in Input) bool { return in.Token == s.Data })) {
		return errors.New("its data is not one of its inputs")
	}
	if s.Copy && s.Out != nil {
		return errors.New("a COPY is no input of another slice")
	}
	if s.Out != nil {
		if s.Out.Slice != s.Index || len(s.Out.Receivers) == 0 {
			return errors.New("its motion is another's, or has no receivers")
		}
		if err := s.Out.check(); err != nil {
			return err
		}
	}
	for i := range s.Inputs {
		in := &s.Inputs[i]
		if in.Token == "" || in.Columns < 1 || len(in.Senders) == 0 {
			return fmt.Errorf("its input from slice %d has no token, columns or senders", in.Slice)
		}
	}
	return nil
}

func (r *Run) check() error {
	for _, k := range r.Keys {
		if k.Column < 0 || k.Column > 1663 {
			return fmt.Errorf("there is no key column %d", k.Column)
		}
	}
	return nil
}
