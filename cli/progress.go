package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progressLine shows one line that changes on a terminal, or lines that follow
// each other elsewhere if asked.
func progressLine(w io.Writer, always bool) *progressShow {
	p := &progressShow{w: w, begin: time.Now(), always: always}
	if f, ok := w.(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	return p
}

type progressShow struct {
	w                io.Writer
	begin            time.Time
	terminal, always bool
}

func (p *progressShow) step(what string) {
	at := time.Since(p.begin).Round(time.Second)
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%v  %s", at, what)
	case p.always:
		fmt.Fprintf(p.w, "%v  %s\n", at, what)
	}
}

func (p *progressShow) clear() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
