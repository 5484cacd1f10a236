package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// The exit statuses Greenplum's utilities share.
const (
	codeFailed  = 1
	codeError   = 2
	codeRefused = 4 // the user said no
)

// groupGreenplum is where help lists the utilities.
const groupGreenplum = "greenplum"

// gpTool is what Greenplum's utilities have in common: the log, the prompt
// and the way they end.
type gpTool struct {
	name, host, user string
	in               io.Reader
	out              io.Writer
	file             io.WriteCloser // the log file; nil without one
	quiet, verbose   bool
	noPrompt         bool
	now              func() time.Time
}

// gpFlags are the options every utility has but gpconfig.
type gpFlags struct {
	noPrompt, verbose, quiet bool
	logDir, dataDir          string
	parallel                 int
}

// newGPCommand makes the command of a utility: its flags say what is wrong
// with them as Greenplum does.
func newGPCommand(name, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:                   name + " [options]",
		DisableFlagsInUseLine: true,
		Short:                 short,
		Long:                  long,
		GroupID:               groupGreenplum,
		Version:               version,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return refuseArgs(cmd, "too many arguments: "+args[0])
			}
			return nil
		},
	}
	cmd.SetVersionTemplate("{{.Name}} version {{.Version}}\n")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return refuseArgs(cmd, flagMessage(err)) })
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolP("help", "h", false, "Print this help; so does -?.")
	f.Bool("version", false, "Print the version.")
	f.BoolP("question", "?", false, "Print this help.")
	_ = f.MarkHidden("question")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if ask, _ := cmd.Flags().GetBool("question"); ask {
			if err := cmd.Help(); err != nil {
				return err
			}
			return exitWith(0, nil)
		}
		return nil
	}
	return cmd
}

// add gives a command the common options; parallel is the default of -B, 0 for
// none.
func (g *gpFlags) add(cmd *cobra.Command, parallel int) {
	f := cmd.Flags()
	f.BoolVarP(&g.noPrompt, "no-prompt", "a", false, "Ask nothing.")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "Log more.")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "Write to the log file only.")
	f.StringVarP(&g.logDir, "log-directory", "l", "", "The `directory` of the log file. The default is ~/gpAdminLogs.")
	f.StringVarP(&g.dataDir, "data-directory", "d", "", "The coordinator's data `directory`. The default is $COORDINATOR_DATA_DIRECTORY.")
	if parallel > 0 {
		f.IntVarP(&g.parallel, "batch-size", "B", parallel, "How many instances to work on at a `time`.")
	}
}

// flagMessage says what the flag parser says in the words of Greenplum's.
func flagMessage(err error) string {
	msg := err.Error()
	if flag, ok := strings.CutPrefix(msg, "unknown flag: "); ok {
		return "no such option: " + flag
	}
	if rest, ok := strings.CutPrefix(msg, "unknown shorthand flag: '"); ok && rest != "" {
		return "no such option: -" + rest[:1]
	}
	if flag, ok := strings.CutPrefix(msg, "flag needs an argument: "); ok {
		if _, in, ok := strings.Cut(flag, " in "); ok {
			flag = in
		}
		return flag + " option requires 1 argument"
	}
	return msg
}

// refuseArgs says on the log that the arguments are wrong.
func refuseArgs(cmd *cobra.Command, msg string) error {
	t := newGPTool(cmd, gpFlags{})
	defer t.close()
	t.error("%s: error: %s", t.name, msg)
	t.say("See '%s --help'.", cmd.CommandPath())
	return exitWith(codeError, nil)
}

// newGPTool opens the log. A log file that cannot be written is done without:
// a utility may be started by a function in the server, whose user has no home.
func newGPTool(cmd *cobra.Command, g gpFlags) *gpTool {
	t := &gpTool{
		name: cmd.Name(), host: "localhost", user: "unknown",
		in: cmd.InOrStdin(), out: cmd.OutOrStdout(),
		quiet: g.quiet, verbose: g.verbose, noPrompt: g.noPrompt, now: time.Now,
	}
	if h, err := os.Hostname(); err == nil {
		t.host, _, _ = strings.Cut(h, ".")
	}
	if u, err := user.Current(); err == nil {
		t.user = u.Username
	}
	dir := g.logDir
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return t
		}
		dir = filepath.Join(home, "gpAdminLogs")
	}
	if os.MkdirAll(dir, 0o755) == nil {
		path := filepath.Join(dir, fmt.Sprintf("%s_%s.log", t.name, t.now().Format("20060102")))
		if f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err == nil {
			t.file = f
		}
	}
	return t
}

func (t *gpTool) close() {
	if t.file != nil {
		t.file.Close()
	}
}

func (t *gpTool) log(level, format string, args []any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		line = fmt.Sprintf("%s:%06d %s:%s:%s-[%s]:-%s\n", t.now().Format("20060102:15:04:05"),
			os.Getpid(), t.name, t.host, t.user, level, line)
		if t.file != nil {
			_, _ = io.WriteString(t.file, line)
		}
		if !t.quiet {
			_, _ = io.WriteString(t.out, line)
		}
	}
}

func (t *gpTool) info(format string, args ...any)     { t.log("INFO", format, args) }
func (t *gpTool) warn(format string, args ...any)     { t.log("WARNING", format, args) }
func (t *gpTool) error(format string, args ...any)    { t.log("ERROR", format, args) }
func (t *gpTool) critical(format string, args ...any) { t.log("CRITICAL", format, args) }

func (t *gpTool) debug(format string, args ...any) {
	if t.verbose {
		t.log("DEBUG", format, args)
	}
}

// say prints a plain line.
func (t *gpTool) say(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

// argumentError is a wrong combination of options.
type argumentError string

func (e argumentError) Error() string { return string(e) }

// plainError is a failure that is the user's to mend, not the program's.
type plainError string

func (e plainError) Error() string { return string(e) }

// errRefused says that the user said no.
var errRefused = errors.New("refused by the user")

// run is the frame of gpstop, gpstart and gpstate: the first line of the log,
// and how each kind of error is said. work returns the exit status.
func (t *gpTool) run(cmd *cobra.Command, work func(context.Context) (int, error)) error {
	defer t.close()
	t.info("Starting %s with args: %s", t.name, strings.Join(rawArgs(cmd.Context()), " "))
	code, err := work(cmd.Context())
	var arg argumentError
	var plain plainError
	switch {
	case err == nil:
		return exitWith(code, nil)
	case errors.As(err, &arg):
		t.error("%s: error: %v", t.name, arg)
	case errors.As(err, &plain):
		t.error("%s error: %v", t.name, plain)
	case errors.Is(err, errRefused):
		t.info("User abort requested, Exiting...")
		return exitWith(codeRefused, nil)
	case cmd.Context().Err() != nil:
		t.error("%s: interrupted, exiting...", t.name)
	default:
		t.critical("%s failed. (Reason='%v') exiting...", t.name, err)
	}
	return exitWith(codeError, nil)
}

// confirm asks; without an answer it is no.
func (t *gpTool) confirm(ctx context.Context, question string) error {
	if t.noPrompt {
		return nil
	}
	fmt.Fprintf(t.out, "\n%s Yy|Nn (default=N):\n> ", question)
	answer := make(chan string, 1)
	// A read of a terminal cannot be cancelled: after an interrupt the program
	// ends, and this goroutine with it.
	go func() {
		line, _ := bufio.NewReader(t.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
		return errRefused
	}
}

type argsKey struct{}

// rawArgs are the arguments of the command line behind the utility's name.
func rawArgs(ctx context.Context) []string {
	args, _ := ctx.Value(argsKey{}).([]string)
	return args
}

// coordinatorDir is the coordinator's data directory by option or environment.
func coordinatorDir(option string) (string, error) {
	for _, dir := range []string{option, os.Getenv("COORDINATOR_DATA_DIRECTORY"), os.Getenv("MASTER_DATA_DIRECTORY")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	return "", plainError("Environment Variable COORDINATOR_DATA_DIRECTORY not set!")
}
