package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/trunkline-db/trunkline/internal/benchreport"
)

var _ = register(newBenchCommand)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast proxies, interconnect types and clusters are",
	}
	cmd.AddCommand(newBenchProxyCommand(), newBenchInterconnectCommand(), newBenchQueriesCommand(),
		newBenchRelayCommand(), newBenchProbeCommand())
	return cmd
}

// benchFlags are what all benchmarks are asked in the same way.
type benchFlags struct {
	asJSON, check, progress bool
}

func (b *benchFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&b.check, "check", false, "exit with 3 when a bound is missed")
	f.BoolVar(&b.asJSON, "json", false, "print the report as JSON")
	f.BoolVar(&b.progress, "progress", false, "show what is going on even if standard error is no terminal")
}

// measure runs a benchmark and shows its progress. Who reads that and goes away,
// as head does, ends it like Ctrl-C: what it has made must not stay.
func measure[R any](cmd *cobra.Command, b benchFlags, run func(ctx context.Context, progress func(step string)) (R, error)) (R, error) {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGPIPE)
	defer stop()
	show := progressLine(cmd.ErrOrStderr(), b.progress)
	defer show.clear()
	return run(ctx, show.step)
}

// endedEarly is the error of a benchmark, with exit status 130 and what became
// of what it had made when Ctrl-C has ended it.
func endedEarly(err error, made string) error {
	var early *benchreport.Interrupted
	switch {
	case !errors.As(err, &early):
		return err
	case early.Left != nil:
		return exitWith(130, fmt.Errorf("interrupted; not all of %s could be removed: %w", made, early.Left))
	}
	return exitWith(130, fmt.Errorf("interrupted; %s are removed", made))
}

// benchReport is what a benchmark has measured.
type benchReport interface {
	JSON(w io.Writer) error
	Table(w io.Writer) error
	// Held says whether every bound that was measured holds.
	Held() bool
}

// print prints a report.
func (b *benchFlags) print(w io.Writer, r benchReport) error {
	if b.asJSON {
		return r.JSON(w)
	}
	return r.Table(w)
}

// verdict is the exit status for a report that was printed: with --check 3 when
// a bound is missed.
func (b *benchFlags) verdict(r benchReport) error {
	if b.check && !r.Held() {
		return exitWith(3, nil)
	}
	return nil
}

// writable makes sure that files can be written, not to find out after minutes.
// Of no name there is none.
func writable(paths ...string) error {
	for _, path := range paths {
		if path == "" {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// readReport reads a report that --json has printed into a file.
func readReport[R any](path string, read func(io.Reader) (R, error)) (r R, err error) {
	f, err := os.Open(path)
	if err != nil {
		return r, err
	}
	defer f.Close()
	if r, err = read(f); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return r, err
}

// page is a report that can be a page of Markdown with plots beside it.
type page interface {
	Markdown(w io.Writer, image func(name string) string) error
	Plots(f func(name string, svg func(io.Writer) error) error) error
}

// writeReport writes a page of Markdown, and its plots beside it.
func writeReport(path string, r page) error {
	stem := strings.TrimSuffix(path, filepath.Ext(path))
	image := func(name string) string { return stem + "-" + name + ".svg" }
	err := toFile(path, func(w io.Writer) error {
		return r.Markdown(w, func(name string) string { return filepath.Base(image(name)) })
	})
	return errors.Join(err, r.Plots(func(name string, svg func(io.Writer) error) error { return toFile(image(name), svg) }))
}

// toFile writes a file by f.
func toFile(path string, f func(io.Writer) error) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f(out), out.Close())
}

// values reads a list separated by commas; nil when it is empty. A value that
// parse refuses is said to be no such thing.
func values[T any](flag, thing, list string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for s := range strings.SplitSeq(list, ",") {
		v, err := parse(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("--%s: %q is no %s", flag, strings.TrimSpace(s), thing)
		}
		all = append(all, v)
	}
	return all, nil
}

// words reads a list of any words.
func words(list string) []string {
	all, _ := values("", "", list, func(s string) (string, error) { return s, nil }) // none is refused
	return all
}
