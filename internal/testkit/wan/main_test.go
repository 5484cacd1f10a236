package wan

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helperEnv makes the test binary play a command inside a host.
const helperEnv = "WAN_TEST_HELPER"

func TestMain(m *testing.M) {
	if role := os.Getenv(helperEnv); role != "" {
		os.Exit(helper(role))
	}
	goleak.VerifyTestMain(m)
}

func helper(role string) int {
	role, args, _ := strings.Cut(role, " ")
	switch role {
	case "interfaces":
		list, err := net.Interfaces()
		if err != nil {
			return 1
		}
		for _, i := range list {
			addrs, _ := i.Addrs()
			fmt.Println(i.Name, i.MTU, addrs)
		}
		return 0
	case "sleep": // with a child that sleeps too
		child := helperCommand("sleep-alone")
		if err := child.Start(); err != nil {
			return 1
		}
		fmt.Println(os.Getpid(), child.Process.Pid)
		time.Sleep(time.Minute)
		return 0
	case "sleep-alone":
		time.Sleep(time.Minute)
		return 0
	case "serve": // one connection after the other, echoing one line each
		ln, err := net.Listen("tcp4", args)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for {
			c, err := ln.Accept()
			if err != nil {
				return 1
			}
			_, _ = fmt.Fprintln(c, "hello", c.RemoteAddr().(*net.TCPAddr).IP)
			_ = c.Close()
		}
	case "fetch":
		c, err := net.DialTimeout("tcp4", args, 5*time.Second)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer c.Close()
		var word, ip string
		if _, err := fmt.Fscan(c, &word, &ip); err != nil {
			return 1
		}
		fmt.Println(word, ip)
		return 0
	}
	fmt.Fprintln(os.Stderr, "no such role:", role)
	return 2
}

func helperCommand(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	// The race detector would wait a second before the process exits.
	cmd.Env = append(os.Environ(), helperEnv+"="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// network builds one for the test, which is skipped where that cannot be.
func network(t testing.TB, cfg Config) *Network {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// udp opens a socket in each of the first two hosts.
func udp(t testing.TB, n *Network) (a, b net.PacketConn) {
	t.Helper()
	open := func(h *Host) net.PacketConn {
		conn, err := h.ListenPacket(deadline(t), "udp4", h.AddrPort(0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	return open(n.Host(0)), open(n.Host(1))
}

func send(t testing.TB, from, to net.PacketConn, data []byte) {
	t.Helper()
	if _, err := from.WriteTo(data, to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
}
