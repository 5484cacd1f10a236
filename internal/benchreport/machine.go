package benchreport

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where something was measured.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"model,omitempty"`
	Memory int64  `json:"memory_bytes,omitempty"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// CongestionControl is TCP's.
	CongestionControl string `json:"congestion_control,omitempty"`
}

// ThisMachine describes the machine this runs on. What cannot be found out is
// left empty.
func ThisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	m.Model = field("/proc/cpuinfo", "model name")
	kb, _, _ := strings.Cut(field("/proc/meminfo", "MemTotal"), " ")
	if n, err := strconv.ParseInt(kb, 10, 64); err == nil {
		m.Memory = n << 10
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		m.CongestionControl = strings.TrimSpace(string(b))
	}
	return m
}

// field is the first value of that name in a file of "name: value" lines.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// String describes the machine in a line.
func (m Machine) String() string {
	s := fmt.Sprintf("%d CPUs", m.CPUs)
	if m.Model != "" {
		s += " " + m.Model
	}
	if m.Memory > 0 {
		s += fmt.Sprintf(", %.0f GB", float64(m.Memory)/1e9)
	}
	s += fmt.Sprintf(", Linux %s, %s", m.Kernel, m.Go)
	if m.CongestionControl != "" {
		s += ", TCP " + m.CongestionControl
	}
	return s
}
