package proxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
	"github.com/trunkline-db/trunkline/topology"
)

// FuzzReadHello: what is taken for a hello is one, and encodes back to what
// was read.
func FuzzReadHello(f *testing.F) {
	for _, d := range []icwire.Dialect{icwire.Magic36, icwire.Plain32} {
		for _, ty := range []icwire.Type{icwire.Hello, icwire.PeerHello, icwire.Data} {
			f.Add(icwire.Header{Type: ty, SrcDbid: 2, DstDbid: 1}.Append(nil, d), uint16(ty))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, ty uint16) {
		h, d, err := readHello(bytes.NewReader(b), icwire.Type(ty))
		if err == nil && (h.Type != icwire.Type(ty) || !bytes.Equal(h.Append(nil, d), b[:d.HeaderLen()])) {
			t.Fatalf("% x was read as %v", b, h)
		}
	})
}

// FuzzGreet: whatever a caller says, he is let in only if it begins with the
// hello of the peer that is expected, and no bytes make the proxy wait for more
// than a hello.
func FuzzGreet(f *testing.F) {
	log := slog.New(slog.DiscardHandler)
	good := icwire.Header{Type: icwire.PeerHello, SrcDbid: 2, DstContent: -1, DstDbid: 1}
	for _, d := range []icwire.Dialect{icwire.Magic36, icwire.Plain32} {
		f.Add(good.Append(nil, d))
		f.Add(trunk.Offer(good).Append(nil, d))
		for _, a := range attacks(good) {
			f.Add(a.bytes[:min(len(a.bytes), 100)])
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := New(Config{Log: log, Source: Source{
			Facts:      func() (Facts, error) { return Facts{Dbid: 1, Content: -1}, nil },
			Postmaster: func() (int, int, error) { return 0, 0, io.EOF },
		}})
		if err != nil {
			t.Fatal(err)
		}
		pr := p.newPeer(topology.Entry{Dbid: 2, Host: "127.0.0.1", Port: 1}, DialsUs)
		p.peers[2] = pr
		theirs, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Skipf("no port left to connect from: %v", err)
		}
		ours, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Write(b)
			_ = theirs.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, theirs)
		}()
		got, tr, err := p.greet(context.Background(), ours, p.callers.add(ours))
		if err == nil {
			tr.Close()
			h, _, herr := readHello(bytes.NewReader(b), icwire.PeerHello)
			if herr != nil || got != pr || h.SrcDbid != 2 || h.SrcContent != 0 || h.DstDbid != 1 || h.DstContent != -1 {
				t.Fatalf("% x was let in as %s", b, got.label)
			}
		}
		if n := p.callers.len(); n != 0 {
			t.Fatalf("%d strangers are left", n)
		}
	})
}

// FuzzCheckAck: an answer is taken only from the instance that was dialled.
func FuzzCheckAck(f *testing.F) {
	hello := icwire.Header{Type: icwire.PeerHello, SrcDbid: 2, DstContent: -1, DstDbid: 1}
	ack := hello.PeerHelloAck(4711)
	refused := ack
	refused.Session, refused.Command = refuseWord, uint32(refusePort)
	for _, d := range []icwire.Dialect{icwire.Magic36, icwire.Plain32} {
		for _, h := range []icwire.Header{hello, ack, refused} {
			f.Add(h.Append(nil, d))
		}
	}
	p := &Proxy{dbid: 2, label: "seg0 (dbid 2)"}
	pr := &peer{p: p, entry: topology.Entry{Dbid: 1, Content: -1}}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, d := range []icwire.Dialect{icwire.Magic36, icwire.Plain32} {
			if len(b) < d.HeaderLen() {
				continue
			}
			b := b[:d.HeaderLen()]
			if _, err := pr.checkAck(b, d); err == nil {
				if h, herr := icwire.Decode(b, d); herr != nil || h.Type != icwire.PeerHelloAck || h.DstDbid != 1 || h.DstContent != -1 || h.SrcDbid != 2 || h.Session == refuseWord {
					t.Fatalf("% x was taken as the answer", b)
				}
			}
		}
	})
}
