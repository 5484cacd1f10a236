package logical

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/trunkline-db/trunkline/icwire"
)

// script drives a Table as the proxy does and prints what it is told to do.
type script struct {
	t     *Table
	now   time.Time
	out   strings.Builder
	names map[*Conn]string
	kept  map[*Conn][]int // units of each kept packet
}

func (s *script) name(c *Conn) string {
	if c == nil {
		return "nothing"
	}
	if s.names[c] == "" {
		n := 1
		for _, other := range s.names {
			if strings.HasPrefix(other, fmt.Sprintf("%d<>%d/cmd%d", c.Key.Local.Pid, c.Key.Remote.Pid, c.Key.Command)) {
				n++
			}
		}
		s.names[c] = fmt.Sprintf("%d<>%d/cmd%d", c.Key.Local.Pid, c.Key.Remote.Pid, c.Key.Command)
		if n > 1 {
			s.names[c] += fmt.Sprintf("#%d", n)
		}
	}
	return s.names[c]
}

func (s *script) do(c *Conn, e Effect) {
	var do []string
	if e.Acks > 0 {
		do = append(do, fmt.Sprintf("send %d DATA_ACK", e.Acks))
	}
	if e.Grant > 0 {
		what := fmt.Sprintf("grant %d", e.Grant)
		if e.Grant == GrantAll {
			what = "grant all"
		}
		if e.Late {
			what += " behind BYE"
		}
		do = append(do, what)
	}
	for _, x := range []struct {
		on   bool
		what string
	}{
		{e.Bye, "send BYE"}, {e.Resume, "resume"}, {e.Shutdown, "shut down backend"},
		{e.Discard, "discard"}, {e.Close, "close backend"}, {e.Ended, "ended"},
	} {
		if x.on {
			do = append(do, x.what)
		}
	}
	if len(do) > 0 {
		fmt.Fprintf(&s.out, "%s: %s\n", s.name(c), strings.Join(do, ", "))
	}
	if e.Ended {
		if next, e := s.t.Remove(c); next != nil {
			fmt.Fprintf(&s.out, "%s: serve\n", s.name(next))
			s.do(next, e)
		}
	}
}

func (s *script) find(key icwire.Key, nth int) *Conn {
	c := s.t.slots[key.ID()]
	for ; nth > 1 && c != nil; nth-- {
		c = c.next
	}
	return c
}

func payload(packets, size int) []byte {
	var b []byte
	for range packets {
		if size < 4 { // the early stop byte
			return []byte("S")
		}
		p := make([]byte, size)
		p[0], p[1] = byte(size), byte(size>>8)
		b = append(b, p...)
	}
	return b
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		var s *script
		reset := func() {
			table := NewTable()
			table.Payload = 1 // so that room in bytes is room in packets
			s = &script{t: table, now: time.Unix(1000, 0), names: map[*Conn]string{}, kept: map[*Conn][]int{}}
		}
		reset()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			local, remote, cmd, n, size, packets, nth := 10, 20, 1, 1, 100, 1, 1
			var grant uint64
			late := false
			for _, a := range d.CmdArgs {
				switch a.Key {
				case "local":
					a.Scan(t, 0, &local)
				case "remote":
					a.Scan(t, 0, &remote)
				case "cmd":
					a.Scan(t, 0, &cmd)
				case "n":
					a.Scan(t, 0, &n)
				case "size":
					a.Scan(t, 0, &size)
				case "packets":
					a.Scan(t, 0, &packets)
				case "nth":
					a.Scan(t, 0, &nth)
				case "late":
					late = true
				case "grant":
					if a.Vals[0] == "all" {
						grant = GrantAll
					} else {
						a.Scan(t, 0, &grant)
					}
				}
			}
			key := icwire.Key{
				Session: 7, Command: uint32(cmd), SendSlice: 1, RecvSlice: 0,
				Local: icwire.End{Content: -1, Dbid: 1, Pid: int32(local)}, Remote: icwire.End{Content: 0, Dbid: 2, Pid: int32(remote)},
			}
			switch d.Cmd {
			case "new":
				reset()
				for _, a := range d.CmdArgs {
					switch a.Key {
					case "inside":
						s.t.CountInside = true
					case "credit": // the budget in bytes
						var total int64
						a.Scan(t, 0, &total)
						s.t.Credit, s.t.Budget, s.t.RTT = true, NewBudget(total, 1<<20), 10*time.Millisecond
					case "early":
						a.Scan(t, 0, &s.t.Limits.EarlyBytes)
					case "conns":
						a.Scan(t, 0, &s.t.Limits.EarlyConns)
					case "pending":
						a.Scan(t, 0, &s.t.Limits.Pending)
					case "chain":
						a.Scan(t, 0, &s.t.Limits.Chain)
					}
				}
			case "hello":
				c, e, others, refused := s.t.Hello(key, s.now)
				switch {
				case refused != "":
					fmt.Fprintf(&s.out, "refused: %s\n", refused)
				case c.Served():
					fmt.Fprintf(&s.out, "%s: serve, %d bytes early\n", s.name(c), c.Pending())
				default:
					fmt.Fprintf(&s.out, "%s: wait\n", s.name(c))
				}
				if c != nil {
					s.do(c, e)
				}
				for _, o := range others {
					s.do(o.Conn, o.Effect)
				}
			case "data":
				for range n {
					b := payload(packets, size)
					c, keep, units, e := s.t.Data(key, b, true, s.now)
					if keep {
						s.kept[c] = append(s.kept[c], units)
					}
					what := "dropped"
					if keep {
						what = "kept"
					}
					if n == 1 {
						fmt.Fprintf(&s.out, "%s: %s\n", s.name(c), what)
					}
					s.do(c, e)
				}
			case "bye":
				c, e := s.t.Bye(key, s.now)
				s.do(c, e)
			case "perished":
				c, e := s.t.Perished(key)
				if c == nil {
					fmt.Fprintf(&s.out, "nobody's\n")
					break
				}
				s.do(c, e)
			case "reconnected":
				s.t.Reconnected()
			case "ack":
				for range n {
					c, e := s.t.Ack(key, grant, late)
					if c == nil {
						fmt.Fprintf(&s.out, "nobody's\n")
						break
					}
					s.do(c, e)
				}
			case "read":
				c := s.find(key, nth)
				k := min(n, c.Room())
				fmt.Fprintf(&s.out, "%s: %d of %d sent %v\n", s.name(c), k, n, c.Sent(k, k))
				if c.Room() == 0 && !c.Finished() {
					fmt.Fprintf(&s.out, "%s: paused\n", s.name(c))
				}
			case "take":
				c := s.find(key, nth)
				kept := s.kept[c]
				if c.Pending() > 0 {
					each := c.Pending() / len(kept)
					for _, u := range kept {
						s.do(c, s.t.Taken(c, each, u, s.now))
					}
				}
				s.kept[c] = nil
			case "eof":
				c := s.find(key, nth)
				s.do(c, s.t.EOF(c))
			case "deaf":
				c := s.find(key, nth)
				s.do(c, s.t.Deaf(c))
			case "gone":
				c := s.find(key, nth)
				s.do(c, s.t.Gone(c))
			case "lost":
				all := s.t.Lost()
				slices.SortStableFunc(all, func(a, b Do) int { return strings.Compare(s.name(a.Conn), s.name(b.Conn)) })
				for _, d := range all {
					s.do(d.Conn, d.Effect)
				}
			case "tick":
				s.now = s.now.Add(time.Duration(n) * time.Second)
				for _, d := range s.t.Expire(s.now) {
					s.do(d.Conn, d.Effect)
				}
			case "pass": // milliseconds
				s.now = s.now.Add(time.Duration(n) * time.Millisecond)
			case "announce":
				if w, changed := s.t.Announce(); changed {
					fmt.Fprintf(&s.out, "%d bytes are free\n", w)
				}
			case "announced":
				s.t.Free = uint64(n)
			case "budget":
				fmt.Fprintf(&s.out, "begun %d, grown %d\n", s.t.Budget.begun.Load(), s.t.Budget.grown.Load())
			case "state":
				ec, eb := s.t.Early()
				fmt.Fprintf(&s.out, "%d connections, %d early with %d bytes, %d pairs, %d given up\n", s.t.Len(), ec, eb, len(s.t.pairs), len(s.t.tombs))
			default:
				t.Fatalf("unknown command %s", d.Cmd)
			}
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}
