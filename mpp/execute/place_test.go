package execute

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
)

func dataRow(values ...string) []byte {
	row := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		if v == "NULL" {
			row = append(row, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		row = append(binary.BigEndian.AppendUint32(row, uint32(len(v))), v...)
	}
	return row
}

func TestColumn(t *testing.T) {
	row := dataRow("a", "NULL", "", "bcd")
	for n, want := range []string{"a", "NULL", "", "bcd"} {
		if v, err := column(row, n); err != nil || (v == nil) != (want == "NULL") || v != nil && string(v) != want {
			t.Errorf("column %d: %q, %v, want %s", n, v, err, want)
		}
	}
	for _, c := range []struct {
		row []byte
		n   int
	}{{row, 4}, {row[:len(row)-1], 3}, {row[:3], 0}, {nil, 0}, {[]byte{0, 1, 0, 0, 0, 9, 1}, 0}} {
		var me *motion.Error
		if v, err := column(c.row, c.n); !errors.As(err, &me) || me.Code != "08P01" {
			t.Errorf("% x, column %d: %q, %v", c.row, c.n, v, err)
		}
	}
}

// TestPlaceAllocates nothing: it is done for each row.
func TestPlaceAllocates(t *testing.T) {
	p, err := newPlacer(&Run{Receivers: make([]motion.Peer, 3), Keys: []Key{{Column: 1, OID: 23}, {Column: 2, OID: 25}}})
	if err != nil {
		t.Fatal(err)
	}
	row := dataRow("x", "4711", "some text")
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := p.place(row); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkPlace(b *testing.B) {
	p, err := newPlacer(&Run{Receivers: make([]motion.Peer, 3), Keys: []Key{{Column: 0, OID: 23}}})
	if err != nil {
		b.Fatal(err)
	}
	row := dataRow("4711")
	for b.Loop() {
		if _, err := p.place(row); err != nil {
			b.Fatal(err)
		}
	}
}
