package icwire

import (
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var udpSample = UDPHeader{
	UDPKey: UDPKey{
		Session: 8, Instance: 0x609, SendSlice: 1, RecvSlice: 0,
		SrcContent: 0, SrcPid: 31611, DstContent: -1, DstPid: 31551,
	},
	MotionNode: 1, SrcPort: 0x9c41, DstPort: 0x9c42,
	Flags: UDPEOS, Seq: 3, Extra: 2,
}

// udpGolden is the sample with an end of stream chunk, from the table in
// Greenplum's header file, by hand.
const udpGolden = "" +
	"01000000" + "7b7b0000" + "419c0000" + "3f7b0000" + "429c0000" +
	"08000000" + "09060000" + "00000000" + "01000000" +
	"00000000" + "ffffffff" + "00000000" + "08000000" + "44000000" +
	"03000000" + "02000000" + "00000400"

func TestUDPGolden(t *testing.T) {
	packet := AppendChunk(make([]byte, UDPHeaderLen), ChunkEndOfStream, nil)
	udpSample.Put(packet, false)
	if got := hex.EncodeToString(packet); got != udpGolden {
		t.Errorf("got  %s\nwant %s", got, udpGolden)
	}
	h, body, err := DecodeUDP(packet)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(udpSample, h); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(body, packet[UDPHeaderLen:]) || cap(body) != len(body) {
		t.Errorf("body % x, cap %d", body, cap(body))
	}
}

func TestUDPCRC(t *testing.T) {
	packet := append(make([]byte, UDPHeaderLen), "some rows"...)
	udpSample.Put(packet, true)
	plain := bytes.Clone(packet)
	copy(plain[44:48], make([]byte, 4))
	want := crc32.Checksum(plain, crc32.MakeTable(crc32.Castagnoli))
	if got := packet[44:48]; !bytes.Equal(got, []byte{byte(want), byte(want >> 8), byte(want >> 16), byte(want >> 24)}) {
		t.Errorf("checksum % x, want %08x", got, want)
	}
	for i := range packet {
		for _, bit := range []byte{1, 0x80} {
			if !CheckUDP(packet) {
				t.Fatal("the packet is refused as it was made")
			}
			packet[i] ^= bit
			if CheckUDP(packet) {
				t.Errorf("byte %d may be changed by %#x", i, bit)
			}
			packet[i] ^= bit
		}
	}
}

func TestUDPRefused(t *testing.T) {
	packet := append(make([]byte, UDPHeaderLen), "rows"...)
	udpSample.Put(packet, false)
	long := append(bytes.Clone(packet), 0)
	for want, b := range map[string][]byte{
		"0 bytes is shorter":   nil,
		"63 bytes is shorter":  packet[:63],
		"64 bytes says it has": packet[:64],
		"69 bytes says it has": long,
	} {
		if _, _, err := DecodeUDP(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v, want %q", len(b), err, want)
		}
	}
}

func TestMissing(t *testing.T) {
	body := AppendMissing(nil, []uint32{5, 6, 9, 1 << 31, 77})
	got, err := Missing(nil, body)
	if d := cmp.Diff([]uint32{5, 6, 9, 1 << 31}, got); d != "" || err != nil {
		t.Error(err, d)
	}
	for _, n := range []int{1, 5, 20} {
		if _, err := Missing(nil, make([]byte, n)); err == nil {
			t.Errorf("a body of %d bytes is taken", n)
		}
	}
}

func TestUDPNames(t *testing.T) {
	for want, f := range map[string]UDPFlags{
		"DATA":             0,
		"ACK|CAPACITY":     UDPAck | UDPCapacity,
		"EOS|ABORT|0x8000": UDPEOS | UDPAbort | 0x8000,
	} {
		if f.String() != want {
			t.Errorf("%v, want %s", f, want)
		}
	}
	if got, want := udpSample.UDPKey.String(), "con8,ic1545,slice[1->0] seg0:p31611->seg-1:p31551"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// FuzzUDP: what is taken encodes back to the same bytes but for the checksum,
// and the checksum made for it is right.
func FuzzUDP(f *testing.F) {
	b, err := hex.DecodeString(udpGolden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:64])
	disorder := UDPHeader{Flags: UDPDisorder | UDPToSender, Seq: 9, Extra: 4}
	b = AppendMissing(make([]byte, UDPHeaderLen), []uint32{5, 6})
	disorder.Put(b, true)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := DecodeUDP(b)
		if err != nil {
			return
		}
		if len(body) != len(b)-UDPHeaderLen {
			t.Fatalf("body of %d bytes in a datagram of %d", len(body), len(b))
		}
		before := bytes.Clone(b)
		CheckUDP(b)
		if !bytes.Equal(before, b) {
			t.Fatal("CheckUDP changes the datagram")
		}
		again := append(make([]byte, UDPHeaderLen), body...)
		h.Put(again, true)
		if !CheckUDP(again) {
			t.Fatal("own checksum refused")
		}
		copy(again[44:48], b[44:48])
		if !bytes.Equal(again, b) {
			t.Fatalf("% x encodes back as % x", b, again)
		}
		if seqs, err := Missing(nil, body); err == nil && !bytes.Equal(AppendMissing(nil, seqs), body) {
			t.Fatalf("missing numbers % x decode as %v", body, seqs)
		}
	})
}
