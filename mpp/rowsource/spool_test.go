package rowsource

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// TestSpool keeps rows in memory and beyond, and gives them back twice.
func TestSpool(t *testing.T) {
	for _, rows := range []int{0, 1, 1000, 6000} {
		sp := &Spool{}
		row := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, i%2000) }
		for i := range rows {
			if err := sp.Add(row(i)); err != nil {
				t.Fatal(err)
			}
		}
		if inFile := sp.file != nil; inFile != (rows == 6000) {
			t.Errorf("%d rows: in a file %v", rows, inFile)
		}
		for range 2 {
			n := 0
			err := sp.Replay(func(got []byte) error {
				if !bytes.Equal(got, row(n)) {
					return fmt.Errorf("row %d has %d bytes", n, len(got))
				}
				n++
				return nil
			})
			if err != nil || n != rows {
				t.Fatalf("%d of %d rows: %v", n, rows, err)
			}
		}
		stop := errors.New("stop")
		if err := sp.Replay(func([]byte) error { return stop }); rows > 0 && err != stop {
			t.Errorf("the sink's error comes back as %v", err)
		}
		sp.Close()
	}
}
