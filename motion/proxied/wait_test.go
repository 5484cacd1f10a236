package proxied_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/proxied"
)

// giveWhole is a proxy as far as a receiver of short streams sees it. On each
// connection it does what it is told, a word for each step; the number in a word is
// the content id of the sender that it is about.
//
//	ack1   read a packet and answer it with HELLO_ACK
//	bye1   say BYE
//	lost1  say LOST
//	give1  give a whole stream with one tuple
//	raw1   write such a stream as it is, behind a HELLO
//	part1  give a stream without its end
//	more1  give a stream with more behind its end
//	alien1 give the stream of another session
//	mute   say nothing, until the other end has gone
//
// After its words it closes; with a last word of keep, when the other end does.
func giveWhole(t *testing.T, g *fakeProxy, c net.Conn, what string) {
	if err := give(g, c, strings.Fields(what)); err != nil {
		t.Errorf("%q: %v", what, err)
	}
}

func give(g *fakeProxy, c net.Conn, words []string) error {
	heads := map[byte]icwire.Header{} // by the sender's content
	for _, w := range words {
		var from byte
		if n := len(w) - 1; w[n] >= '0' && w[n] <= '9' {
			w, from = w[:n], w[n]-'0'
		}
		say := func(t icwire.Type, stream []byte) error {
			h := heads[from]
			h.Type, h.Len = t, uint16(icwire.MaxHeaderLen+len(stream))
			if w == "alien" {
				h.Session++
			}
			_, err := c.Write(append(h.Append(nil, icwire.Magic36), stream...))
			return err
		}
		tuple := fmt.Appendf(nil, "from%d", from)
		stream := packet(tuple, true)
		var err error
		switch w {
		case "ack":
			head := make([]byte, icwire.MaxHeaderLen)
			if _, err = io.ReadFull(c, head); err != nil {
				break
			}
			var h icwire.Header
			if h, err = icwire.Decode(head, icwire.Magic36); err != nil {
				break
			}
			g.note(fmt.Sprintf("%v %d %d", h.Type, h.Command, h.DstContent))
			heads[byte(h.DstContent)] = h.HelloAck()
			if h.DstContent != int16(from) {
				return fmt.Errorf("heard of %d", h.DstContent)
			}
			err = say(icwire.HelloAck, nil)
		case "bye":
			err = say(icwire.Bye, nil)
		case "lost":
			err = say(icwire.Lost, nil)
		case "give", "alien":
			err = say(icwire.Whole, stream)
		case "part":
			err = say(icwire.Whole, packet(tuple, false))
		case "more":
			err = say(icwire.Whole, append(stream, "more"...))
		case "raw":
			_, err = c.Write(stream)
		case "mute", "keep":
			_, _ = io.Copy(io.Discard, c)
		default:
			err = fmt.Errorf("no such word: %s", w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func packet(tuple []byte, end bool) []byte {
	b := icwire.AppendChunk(icwire.OpenTuplePacket(nil), icwire.ChunkWhole, tuple)
	if end {
		b = icwire.AppendChunk(b, icwire.ChunkEndOfStream, nil)
	}
	icwire.CloseTuplePacket(b)
	return b
}

// TestWait: what becomes of streams that a receiver waits for.
func TestWait(t *testing.T) {
	const both = "from1 from2"
	for _, c := range []struct {
		name   string
		script string // by connection, with bars between them
		want   string // of each motion, with bars between them
		heard  string
	}{
		{"whole", "ack1 ack2 give2 give1 keep", both, "WAIT 1 1, WAIT 1 2"},
		{"there already", "ack1 give1 ack2 give2 keep", both, "WAIT 1 1, WAIT 1 2"},
		{"one connection for all", "ack1 ack2 give1 give2 ack1 ack2 give1 give2 keep", both + "|" + both, "WAIT 1 1, WAIT 1 2, WAIT 2 1, WAIT 2 2"},
		{"another proxy next time", "ack1 ack2 give1 give2 | ack1 ack2 give1 give2 keep", both + "|" + both, "WAIT 1 1, WAIT 1 2, WAIT 2 1, WAIT 2 2"},
		{"one behind a hello", "ack1 ack2 bye2 give1 keep | ack2 raw2", both, "WAIT 1 1, WAIT 1 2, HELLO 1 2"},
		{"behind a hello, and then again", "ack1 ack2 bye2 give1 keep | ack2 raw2 | ack1 ack2 give1 give2 keep", both + "|" + both,
			"WAIT 1 1, WAIT 1 2, HELLO 1 2, WAIT 2 1, WAIT 2 2"},
		{"unknown to it", " | ack1 raw1 | ack2 raw2", both, "HELLO 1 1, HELLO 1 2"},
		{"closed after one answer", "ack1 | ack1 raw1 | ack2 raw2", both, "WAIT 1 1, HELLO 1 1, HELLO 1 2"},
		{"lost", "ack1 ack2 give1 lost2 keep", "from1 connection closed prematurely: trouble (from Remote Connection: contentId=2", "WAIT 1 1, WAIT 1 2"},
		{"closed", "ack1 ack2 give1", "from1 connection closed prematurely", "WAIT 1 1, WAIT 1 2"},
		{"no end", "ack1 ack2 give1 part2 keep", "from1 connection closed prematurely", "WAIT 1 1, WAIT 1 2"},
		{"bytes after the end", "ack1 ack2 give1 more2 keep", "from1 interconnect error parsing message", "WAIT 1 1, WAIT 1 2"},
		{"another's stream", "ack1 ack2 give1 alien2 keep", "from1 no proper answer", "WAIT 1 1, WAIT 1 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startFakeProxy(t, giveWhole, strings.Split(c.script, "|")...)
			ic := newIC(t, proxied.Config{
				Socket:  g.socket,
				Cause:   func(context.Context, uint16, bool) string { return "trouble" },
				Restart: -1, Whole: true,
			})
			for i, want := range strings.Split(c.want, "|") {
				rid := id
				rid.Command = uint32(i + 1)
				var got []string
				r, err := ic.Receive(t.Context(), rid, peer(0), []motion.Peer{peer(1), peer(2)})
				if err != nil {
					t.Fatal(err)
				}
				var rows [3]bool
				for err == nil {
					var row []byte
					var from int
					if row, from, err = r.Receive(t.Context()); err == nil {
						rows[from+1] = string(row) == fmt.Sprintf("from%d", peer(from+1).Content)
					}
				}
				for n, ok := range rows {
					if ok {
						got = append(got, fmt.Sprintf("from%d", n))
					}
				}
				if err == io.EOF {
					err = r.Close(t.Context())
				} else {
					r.Abort()
				}
				// What comes before a failure may be lost with it.
				said := strings.Join(got, " ")
				if err != nil {
					if _, failure, ok := strings.Cut(want, "from1 "); !ok || !strings.Contains(err.Error(), failure) {
						t.Errorf("%q, then %v, want %q", said, err, want)
					}
				} else if said != want {
					t.Errorf("%q, want %q", said, want)
				}
			}
			ic.Close()
			g.ln.Close()
			g.wg.Wait()
			heard := strings.Join(g.heard, ", ")
			if c.name == "unknown to it" || c.name == "closed after one answer" {
				heard = strings.Replace(heard, "HELLO 1 2, HELLO 1 1", "HELLO 1 1, HELLO 1 2", 1)
			}
			if heard != c.heard {
				t.Errorf("the proxy heard %q, want %q", heard, c.heard)
			}
		})
	}
}

// TestWaitGivenUp: a receiver that gives up, or whose proxy says nothing, waits for
// nobody, whether that has answered or not.
func TestWaitGivenUp(t *testing.T) {
	senders := []motion.Peer{peer(1), peer(2)}
	open := func(t *testing.T, script string, cfg proxied.Config) motion.Interconnect {
		g := startFakeProxy(t, giveWhole, script)
		cfg.Socket, cfg.Restart, cfg.Whole = g.socket, -1, true
		return newIC(t, cfg)
	}
	t.Run("unanswered", func(t *testing.T) {
		ic := open(t, "mute", proxied.Config{})
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
		if _, err := ic.Receive(ctx, id, peer(0), senders); !errors.Is(err, enough) {
			t.Error(err)
		}
	})
	t.Run("setup timeout", func(t *testing.T) {
		ic := open(t, "mute", proxied.Config{SetupTimeout: 50 * time.Millisecond})
		start := time.Now()
		_, err := ic.Receive(t.Context(), id, peer(0), senders)
		wantError(t, start, err, "Unable to complete setup")
	})
	t.Run("closed meanwhile", func(t *testing.T) {
		ic := open(t, "mute", proxied.Config{})
		time.AfterFunc(50*time.Millisecond, func() { ic.Close() })
		start := time.Now()
		if _, err := ic.Receive(t.Context(), id, peer(0), senders); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
	for _, end := range []string{"abort", "close", "interconnect"} {
		t.Run("answered, "+end, func(t *testing.T) {
			ic := open(t, "ack1 ack2 mute", proxied.Config{})
			r, err := ic.Receive(t.Context(), id, peer(0), senders)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			switch end {
			case "abort":
				r.Abort()
			case "close":
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			}
			ic.Close()
			if _, _, err := r.Receive(t.Context()); err == nil {
				t.Error("a row")
			}
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("after %v", d)
			}
		})
	}
}
