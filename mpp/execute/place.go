package execute

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
)

// placer sends rows, bodies of DataRow messages, to the receivers of a motion
// that are to have them.
type placer struct {
	n      int // receivers
	keys   []Key
	binary bool // so are the values of the keys
	hash   *cdbhash.Hasher
	values [][]byte // of the keys
	buf    []byte
}

func newPlacer(r *Run) (*placer, error) {
	p := &placer{n: len(r.Receivers), keys: r.Keys, binary: r.Binary}
	if p.n < 2 || len(r.Keys) == 0 {
		p.keys = nil
		return p, nil
	}
	oids := make([]uint32, len(p.keys))
	for i, k := range p.keys {
		oids[i] = k.OID
	}
	var err error
	if p.hash, err = cdbhash.NewHasher(oids); err != nil {
		return nil, &motion.Error{Code: "0A000", Message: fmt.Sprintf("rows cannot be redistributed: %v", err)}
	}
	p.values = make([][]byte, len(p.keys))
	return p, nil
}

// send hands on one row. motion.ErrStopped means that nobody wants any more.
func (p *placer) send(ctx context.Context, s motion.Sender, row []byte) error {
	switch {
	case p.n == 1:
		return s.Send(ctx, 0, row)
	case p.keys == nil:
		return s.Broadcast(ctx, row)
	}
	to, err := p.place(row)
	if err != nil {
		return err
	}
	if err = s.Send(ctx, to, row); errors.Is(err, motion.ErrStopped) && !s.Stopped() {
		return nil // others go on
	}
	return err
}

// place returns the number of the receiver of a row.
func (p *placer) place(row []byte) (int, error) {
	p.buf = p.buf[:0]
	for i, k := range p.keys {
		text, err := column(row, k.Column)
		if err != nil {
			return 0, err
		}
		if text == nil || p.binary {
			p.values[i] = text
			continue
		}
		from := len(p.buf)
		b, ok := cdbhash.FromText(k.OID, text, p.buf)
		if !ok {
			// The planner takes no key whose values the settings may print so.
			return 0, &motion.Error{Code: "XX000", Message: fmt.Sprintf("a value of the type with OID %d cannot be hashed to redistribute its row", k.OID),
				Detail: fmt.Sprintf("The value is printed as %.100q.", text),
				Hint:   "Do not change DateStyle, TimeZone, extra_float_digits or bytea_output in a function of the statement."}
		}
		p.buf = b
		p.values[i] = b[from:len(b):len(b)]
	}
	return p.hash.Segment(p.values, p.n)
}

// column returns a value of a DataRow's body, nil when it is NULL.
func column(row []byte, n int) ([]byte, error) {
	if len(row) < 2 || n >= int(binary.BigEndian.Uint16(row)) {
		return nil, noColumn(n)
	}
	rest := row[2:]
	for left := n; len(rest) >= 4; left-- {
		size := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if int(size) > len(rest) {
			break
		}
		if left == 0 {
			if size < 0 {
				return nil, nil
			}
			return rest[:size:size], nil
		}
		rest = rest[max(size, 0):]
	}
	return nil, noColumn(n)
}

func noColumn(n int) error {
	return &motion.Error{Code: "08P01", Message: fmt.Sprintf("a row has no column %d to redistribute it by", n)}
}
