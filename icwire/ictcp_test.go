package icwire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// capturedStreams are the sender to receiver streams of Greenplum backends:
// what the proxies wrote to the backends, and the payloads between proxies.
func capturedStreams(t testing.TB) map[string][]byte {
	t.Helper()
	streams := map[string][]byte{}
	files, err := filepath.Glob("testdata/ictcp/*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured streams: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		streams[filepath.Base(f)] = b
	}
	peers, err := filepath.Glob("testdata/peer.*.bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range peers {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var stream []byte
		for len(b) > 0 {
			h, payload, n, err := Next(b, Magic36, MaxPacketLen)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if h.Type == Data {
				stream = append(stream, payload...)
			}
			b = b[n:]
		}
		if len(stream) > 0 {
			streams[filepath.Base(f)] = stream
		}
	}
	return streams
}

// TestCapturedStreams takes every captured stream apart and puts it together
// again, byte for byte.
func TestCapturedStreams(t *testing.T) {
	want := map[string]string{
		"gather-1.bin":         "38 tuples, end of stream",
		"gather-2.bin":         "37 tuples, end of stream",
		"gather-3.bin":         "25 tuples, end of stream",
		"gather-4.bin":         "3 tuples, end of stream",
		"gather-5.bin":         "3 tuples, end of stream",
		"gather-6.bin":         "3 tuples, end of stream",
		"gather-7.bin":         "1 tuples, end of stream",
		"gather-8.bin":         "1 tuples, end of stream",
		"gather-9.bin":         "1 tuples, end of stream",
		"peer.40586-35432.bin": "37 tuples, end of stream",
		"peer.40588-35432.bin": "25 tuples, end of stream",
		"peer.40600-35432.bin": "38 tuples, end of stream",
	}
	got := map[string]string{}
	for name, stream := range capturedStreams(t) {
		tuples, ends := 0, ""
		var again []byte
		for rest := stream; len(rest) > 0; {
			chunks, n, err := NextTuplePacket(rest)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			start := len(again)
			again = OpenTuplePacket(again)
			for len(chunks) > 0 {
				typ, body, k, err := NextChunk(chunks)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				switch typ {
				case ChunkWhole:
					tuples++
				case ChunkEndOfStream:
					ends += ", end of stream"
				default:
					t.Errorf("%s: unexpected %v", name, typ)
				}
				again = AppendChunk(again, typ, body)
				chunks = chunks[k:]
			}
			CloseTuplePacket(again[start:])
			rest = rest[n:]
		}
		if !bytes.Equal(again, stream) {
			t.Errorf("%s: encoded again it differs:\n%s", name, cmp.Diff(hex.Dump(stream), hex.Dump(again)))
		}
		got[name] = fmt.Sprintf("%d tuples%s", tuples, ends)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestNextTuplePacket(t *testing.T) {
	for _, c := range []struct {
		in     string
		n      int
		errHas string
	}{
		{"", 0, "not enough bytes"},
		{"0c0000", 0, "not enough bytes"},
		{"0c000000", 12, "not enough bytes"},
		{"0c00000004000000616263", 12, "not enough bytes"},
		{"0c000000040000006162636499", 12, ""},
		{"07000000ffffff", 0, "leaves no room"},
		{"00000000", 0, "leaves no room"},
		{"01000100", 0, "above the largest"},
		{"fecaddba", 0, "above the largest"},
	} {
		in, _ := hex.DecodeString(c.in)
		chunks, n, err := NextTuplePacket(in)
		if n != c.n || (err == nil) != (c.errHas == "") || err != nil && !strings.Contains(err.Error(), c.errHas) {
			t.Errorf("%s: n %d, error %v; want %d, %q", c.in, n, err, c.n, c.errHas)
		}
		if err == nil && len(chunks) != n-TupleHeaderLen {
			t.Errorf("%s: %d bytes of chunks", c.in, len(chunks))
		}
	}
}

func TestNextChunk(t *testing.T) {
	for _, c := range []struct{ in, errHas string }{
		{"", "0 bytes are left"},
		{"040000", "3 bytes are left"},
		{"0400000061626364", ""},
		{"05000000616263", "chunk of 9 bytes in a packet that has 7 left"},
		{"0100060061", "unrecognized type 6 (len 1)"},
		{"00000400", ""},
	} {
		in, _ := hex.DecodeString(c.in)
		_, _, _, err := NextChunk(in)
		if (err == nil) != (c.errHas == "") || err != nil && !strings.Contains(err.Error(), c.errHas) {
			t.Errorf("%s: %v, want %q", c.in, err, c.errHas)
		}
	}
	if got := ChunkStart.String() + " " + ChunkType(9).String(); got != "TC_PARTIAL_START TC_9" {
		t.Error(got)
	}
}

func TestRegistration(t *testing.T) {
	r := Registration{RecvSlice: 1, SendSlice: 2, SrcContent: -1, SrcPort: 40000, SrcPid: 31513, Session: 6, Command: 2}
	msg := r.Append(nil)
	want := "20000000" + "01000000" + "02000000" + "ffffffff" + "409c0000" + "197b0000" + "06000000" + "02000000"
	if hex.EncodeToString(msg) != want {
		t.Errorf("got  %x\nwant %s", msg, want)
	}
	got, err := DecodeRegistration(append(msg, "more"...))
	if err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range msg {
		if _, err := DecodeRegistration(msg[:i]); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	for off, what := range map[int]string{0: "length", 6: "slices", 10: "slices", 14: "content", 18: "port"} {
		bad := bytes.Clone(msg)
		bad[off] = 0x7f
		if _, err := DecodeRegistration(bad); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("byte %d: %v, want an error about %s", off, err, what)
		}
	}
	if _, err := DecodeRegistration([]byte("GET / HTTP/1.1\r\n")); err == nil || errors.Is(err, ErrShort) {
		t.Errorf("HTTP: %v", err)
	}
}
