package stream

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	testID = motion.ID{Session: 7, Command: 3, SendSlice: 2, RecvSlice: 1}
	seg0   = motion.Peer{Content: 0, Dbid: 2, Pid: 100}
	seg1   = motion.Peer{Content: 1, Dbid: 3, Pid: 101}
)

// captured returns what Greenplum backends sent.
func captured(t testing.TB) map[string][]byte {
	t.Helper()
	files, _ := filepath.Glob("../../../icwire/testdata/ictcp/*.bin")
	if len(files) == 0 {
		t.Fatal("no captured streams")
	}
	out := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(f)] = b
	}
	return out
}

// receiveBytes returns the tuples a Receiver finds in what it is sent, cut into
// pieces, and how that ended. hold keeps the connection open after it. In pieces of
// 0 it is taken whole, without a connection.
func receiveBytes(t testing.TB, in []byte, piece int, hold bool) (tuples [][]byte, err error) {
	t.Helper()
	var g Group
	defer g.Close()
	here, there := net.Pipe()
	defer there.Close()
	r := NewReceiver(&g, Options{}, testID, []motion.Peer{seg1})
	if piece > 0 {
		r.Attach(0, here)
	} else if err := r.Take(0, len(in), bytes.NewReader(in)); err != nil {
		t.Error(err)
	}
	go func() {
		if piece == 0 {
			return
		}
		if !hold {
			defer there.Close()
		}
		for len(in) > 0 {
			k := min(piece, len(in))
			if _, err := there.Write(in[:k]); err != nil {
				return
			}
			in = in[k:]
		}
	}()
	for {
		tuple, _, err := r.Receive(t.Context())
		if err != nil {
			return tuples, err
		}
		tuples = append(tuples, bytes.Clone(tuple))
	}
}

// TestGreenplumStreams: we read what Greenplum's backends send, however it is
// cut, and send the same tuples as the same bytes.
func TestGreenplumStreams(t *testing.T) {
	for name, want := range captured(t) {
		var tuples [][]byte
		for _, piece := range []int{1, 3, 7, 100, len(want)} {
			got, err := receiveBytes(t, want, piece, false)
			if err != io.EOF {
				t.Fatalf("%s in pieces of %d: %v", name, piece, err)
			}
			if tuples != nil && len(got) != len(tuples) {
				t.Errorf("%s in pieces of %d: %d tuples, not %d", name, piece, len(got), len(tuples))
			}
			tuples = got
		}
		// In fake time: a sender that is kept from the processor does not think that
		// its producer pauses.
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			var g Group
			s := NewSender(&g, Options{}, []motion.Peer{seg0}, []net.Conn{here})
			read := make(chan []byte)
			go func() {
				// Read the end, then close as a receiver does.
				b := make([]byte, 0, len(want)+100)
				for !bytes.HasSuffix(b, endChunk) || len(b) < len(want) {
					n, err := there.Read(b[len(b):cap(b)])
					b = b[:len(b)+n]
					if err != nil {
						break
					}
				}
				there.Close()
				read <- b
			}()
			for _, tuple := range tuples {
				if err := s.Send(t.Context(), 0, tuple); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := <-read; !bytes.Equal(got, want) {
				t.Errorf("%s: sent\n%x, Greenplum sent\n%x", name, got, want)
			}
			g.Close()
		})
	}
}

// stream builds the bytes of one packet for each list of chunks, which are
// written as type:body.
func packets(list ...string) []byte {
	var b []byte
	for _, p := range list {
		start := len(b)
		b = icwire.OpenTuplePacket(b)
		for _, c := range strings.Fields(p) {
			b = icwire.AppendChunk(b, icwire.ChunkType(c[0]-'0'), []byte(c[2:]))
		}
		icwire.CloseTuplePacket(b[start:])
	}
	return b
}

func TestBadStreams(t *testing.T) {
	for _, c := range []struct {
		name   string
		in     []byte
		tuples string
		err    string // of it the start
	}{
		{"good", packets("0:ab 0:cd", "1:ef", "3:gh 5: 4:"), "ab cd efgh ", "EOF"},
		{"only the end", packets("4:"), "", "EOF"},
		{"no bytes", nil, "", "interconnect error: connection closed prematurely (from Remote Connection: contentId=1 at seg1:dbid3:p101)"},
		{"no end", packets("0:ab 0:cd"), "ab cd", "interconnect error: connection closed prematurely"},
		{"cut in a packet", packets("0:ab 4:")[:12], "", "interconnect error: connection closed prematurely"},
		{"whole after start", packets("1:ab 0:cd"), "", "received TC_WHOLE chunk from [src=1,mn=2] after partial tuple data"},
		{"start after start", packets("1:ab", "1:cd"), "", "received TC_PARTIAL_START chunk from [src=1,mn=2] after partial tuple data"},
		{"mid alone", packets("0:ab 2:cd"), "ab", "received TC_PARTIAL_MID chunk from [src=1,mn=2] without any leading tuple data"},
		{"end alone", packets("3:cd"), "", "received TC_PARTIAL_END chunk from [src=1,mn=2] without any leading tuple data"},
		{"end of stream in a tuple", packets("1:cd 4:"), "", "received TC_END_OF_STREAM chunk from [src=1,mn=2] after partial tuple data"},
		{"unknown chunk", packets("0:ab 7:"), "ab", "interconnect error parsing message (icwire: tuple chunk of unrecognized type 7 (len 0))"},
		{"chunk too long", append(packets("0:ab"), 12, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4), "ab", "interconnect error parsing message (icwire: chunk of 13 bytes"},
		{"chunk header cut", append(packets("0:ab"), 10, 0, 0, 0, 0, 0, 5, 0, 1, 2), "ab ", "interconnect error parsing message: insufficient data received"},
		{"packet too short", []byte{5, 0, 0, 0, 0}, "", "interconnect error parsing message"},
		{"packet too long", []byte("GET / HTTP/1.1\r\n\r\n"), "", "interconnect error parsing message"},
		{"bytes after the end", append(packets("0:ab 4:"), 1), "", "interconnect error parsing message"},
		{"tuple like the end", packets("0:xy", "0:\x00\x00\x04\x00", "4:"), "xy \x00\x00\x04\x00", "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, piece := range []int{1000, 1, 0} {
				if c.name == "bytes after the end" && piece == 1 {
					continue // it has closed before
				}
				// A close would be noticed before what is in the blocks.
				hold := !strings.Contains(c.err, "prematurely")
				tuples, err := receiveBytes(t, c.in, piece, hold)
				// Whole, a stream without its end is looked at no further.
				cut := piece == 0 && err != nil && strings.HasPrefix(err.Error(), "interconnect error: connection closed prematurely")
				if err == nil || !strings.HasPrefix(err.Error(), c.err) && (!cut || c.err == "EOF") {
					t.Errorf("in pieces of %d: error %v, want %q", piece, err, c.err)
				}
				got := string(bytes.Join(tuples, []byte(" ")))
				// What comes before a failure may be lost with it.
				if got != c.tuples && (c.err == "EOF" || !strings.HasPrefix(c.tuples, got)) {
					t.Errorf("in pieces of %d: tuples %q, want %q", piece, got, c.tuples)
				}
			}
		})
	}
}

// TestStrangeReceiver: whatever is not a stop message is no receiver's.
func TestStrangeReceiver(t *testing.T) {
	var g Group
	defer g.Close()
	here, there := net.Pipe()
	s := NewSender(&g, Options{}, []motion.Peer{seg0}, []net.Conn{here})
	if _, err := there.Write([]byte("SX")); err != nil {
		t.Fatal(err)
	}
	<-s.life.done
	err := s.Send(t.Context(), 0, nil)
	for err == nil || err == motion.ErrStopped {
		err = s.Close(t.Context())
	}
	if !strings.Contains(err.Error(), "something else than a stop message") {
		t.Error(err)
	}
	there.Close()
}
