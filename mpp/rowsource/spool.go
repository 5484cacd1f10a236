package rowsource

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
)

// Spool keeps rows that cannot be used yet: in memory while they are few,
// in an unlinked file beyond. The zero value is empty. One goroutine uses it at
// a time. Close must be called.
type Spool struct {
	mem  []byte
	file *os.File
	w    *bufio.Writer
	rows int64
}

// spoolMemory is how much a spool keeps in memory.
const spoolMemory = 4 << 20

// Add keeps a copy of row.
func (sp *Spool) Add(row []byte) error {
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(row)))
	sp.rows++
	if sp.file == nil && len(sp.mem)+len(row) < spoolMemory {
		sp.mem = append(append(sp.mem, head[:]...), row...)
		return nil
	}
	if sp.file == nil {
		f, err := os.CreateTemp("", "trunkline-rows-*")
		if err != nil {
			return err
		}
		_ = os.Remove(f.Name()) // the descriptor is all that is needed
		sp.file, sp.w = f, bufio.NewWriterSize(f, 256<<10)
		if _, err := sp.w.Write(sp.mem); err != nil {
			return err
		}
		sp.mem = nil
	}
	if _, err := sp.w.Write(head[:]); err != nil {
		return err
	}
	_, err := sp.w.Write(row)
	return err
}

// Replay sinks all rows in order. The row is valid during the call only. It
// may be called again.
func (sp *Spool) Replay(sink func([]byte) error) error {
	if sp.file == nil {
		for rest := sp.mem; len(rest) > 0; {
			n := int(binary.BigEndian.Uint32(rest))
			if err := sink(rest[4 : 4+n]); err != nil {
				return err
			}
			rest = rest[4+n:]
		}
		return nil
	}
	if err := sp.w.Flush(); err != nil {
		return err
	}
	if _, err := sp.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := bufio.NewReaderSize(sp.file, 256<<10)
	var head [4]byte
	var row []byte
	for range sp.rows {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(head[:]))
		if cap(row) < n {
			row = make([]byte, n)
		}
		row = row[:n]
		if _, err := io.ReadFull(r, row); err != nil {
			return err
		}
		if err := sink(row); err != nil {
			return err
		}
	}
	return nil
}

// Len is how many rows it keeps.
func (sp *Spool) Len() int64 { return sp.rows }

// Close forgets the rows and frees the file. It may be called more than once.
func (sp *Spool) Close() {
	if sp.file != nil {
		sp.file.Close()
		sp.file = nil
	}
	sp.mem, sp.rows = nil, 0
}
