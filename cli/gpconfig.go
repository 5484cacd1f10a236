package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/topology"
)

var _ = register(newGPConfigCommand)

// Parameters gpconfig leaves alone: where an instance listens is a fact of the
// cluster, and where its files are is the instance's business.
var notByGPConfig = map[string]bool{
	"port": true, "listen_addresses": true, "unix_socket_directories": true, "data_directory": true,
	"config_file": true, "hba_file": true, "ident_file": true, "external_pid_file": true,
}

// Parameters that name what an instance or a session is.
var notModifiable = map[string]bool{
	guc.Dbid: true, guc.ContentID: true, guc.Role: true, guc.SessionRole: true,
}

type gpconfig struct {
	*gpTool
	change, remove, show                             string
	list, file, fileCompare                          bool
	value, primaryValue, mirrorValue, coordValue     string
	hasValue, hasPrimary, hasMirror, hasCoord        bool
	coordOnly, skipValidation, verboseFlag, debugLog bool

	cat       catalog
	instances []topology.Instance
}

func newGPConfigCommand() *cobra.Command {
	var g gpconfig
	var newCoordValue string
	cmd := newGPCommand("gpconfig", "Show or change a parameter in the configuration files of all instances",
		`Sets, removes or shows a parameter in the postgresql.conf of every instance. The
system must be running. A changed file is obeyed after "gpstop -u", or, for
parameters that say so, after a restart.

The interconnect's parameters are all known and checked. The address list is
taken with or without --skipvalidation, and with or without quotes in it:

  gpconfig -c gp_interconnect_proxy_addresses -v "1:-1:127.0.0.1:14432,..."

Exit status: 0 done, 1 failed, 2 wrong options.`)
	f := cmd.Flags()
	f.StringVarP(&g.change, "change", "c", "", "Set the parameter `NAME` to the value of -v.")
	f.StringVarP(&g.value, "value", "v", "", "The `value` on every instance.")
	f.StringVarP(&g.coordValue, "mastervalue", "m", "", "The `value` on coordinator and standby, where it differs.")
	f.StringVar(&newCoordValue, "coordinatorvalue", "", "The same as --mastervalue, and stronger; a `value`.")
	f.StringVarP(&g.primaryValue, "primaryvalue", "P", "", "The `value` on primaries.")
	f.StringVarP(&g.mirrorValue, "mirrorvalue", "M", "", "The `value` on mirrors.")
	f.BoolVar(&g.coordOnly, "masteronly", false, "Change coordinator and standby only.")
	f.BoolVar(&g.coordOnly, "coordinatoronly", false, "The same as --masteronly.")
	f.StringVarP(&g.remove, "remove", "r", "", "Comment the parameter `NAME` out.")
	f.StringVarP(&g.show, "show", "s", "", "Show the live value of the parameter `NAME`.")
	f.BoolVarP(&g.file, "file", "f", false, "With --show: the value in the files.")
	f.BoolVar(&g.fileCompare, "file-compare", false, "With --show: compare the live values with the files'.")
	f.BoolVarP(&g.list, "list", "l", false, "List all parameters that can be changed.")
	f.BoolVar(&g.skipValidation, "skipvalidation", false, "Write the value as it is, unchecked.")
	f.BoolVar(&g.verboseFlag, "verbose", false, "Log each file that is changed.")
	f.BoolVar(&g.debugLog, "debug", false, "Log more.")
	_ = f.MarkHidden("primaryvalue")
	_ = f.MarkHidden("mirrorvalue")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		g.gpTool = newGPTool(cmd, gpFlags{verbose: g.debugLog || g.verboseFlag})
		defer g.close()
		g.hasValue, g.hasPrimary = f.Changed("value"), f.Changed("primaryvalue")
		g.hasMirror, g.hasCoord = f.Changed("mirrorvalue"), f.Changed("mastervalue") || f.Changed("coordinatorvalue")
		if f.Changed("coordinatorvalue") {
			g.coordValue = newCoordValue
		}
		return g.main(cmd.Context())
	}
	return cmd
}

// saidError is an error that is on the log already.
type saidError struct{ error }

// fatal logs a refusal.
func (g *gpconfig) fatal(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	g.critical("%v", err)
	return saidError{err}
}

// main does the work. As Greenplum's, it prints the reason of a failure twice:
// on the log and bare.
func (g *gpconfig) main(ctx context.Context) error {
	err := g.checkOptions()
	if err == nil {
		err = g.work(ctx)
	}
	if err == nil {
		return nil
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return err
	}
	if !errors.As(err, new(saidError)) {
		g.error("%v", err)
	}
	g.say("%v", err)
	return exitWith(codeFailed, nil)
}

func (g *gpconfig) checkOptions() error {
	actions := 0
	for _, set := range []bool{g.change != "", g.remove != "", g.show != "", g.list} {
		if set {
			actions++
		}
	}
	anyValue := g.hasValue || g.hasPrimary || g.hasMirror || g.hasCoord
	msg := ""
	switch {
	case actions == 0:
		msg = "No action specified.  See the --help info."
	case actions > 1:
		msg = "Multiple actions specified.  See the --help info."
	case g.file && g.show == "":
		msg = "'--file' option must accompany '--show' option"
	case g.fileCompare && g.show == "":
		msg = "'--file-compare' option must accompany '--show' option"
	case g.file && g.fileCompare:
		msg = "'--file' option and '--file-compare' option cannot be used together"
	case g.skipValidation && g.show != "":
		msg = "--skipvalidation can not be combined with --show"
	case g.remove != "" && anyValue:
		msg = "remove action does not take a value, primary value, mirror value or coordinator value parameter"
	case g.change == "" && anyValue:
		msg = "a value is only taken with '--change'"
	case g.change != "" && g.coordOnly && g.hasCoord:
		msg = "when changing a parameter on the coordinator only specify the --value not --mastervalue"
	case g.hasValue && (g.hasPrimary || g.hasMirror):
		msg = "cannot use both value option and primaryvalue/mirrorvalue option"
	case g.change != "" && !g.hasValue && !g.hasPrimary && !g.hasMirror:
		msg = "change requested but value not specified"
	case g.file:
		if _, err := coordinatorDir(""); err != nil {
			msg = "--file option requires that COORDINATOR_DATA_DIRECTORY be set"
		}
	}
	if msg != "" {
		return errors.New(msg)
	}
	return nil
}

func (g *gpconfig) work(ctx context.Context) error {
	var err error
	if g.cat, err = openCatalog(ctx); err == nil {
		defer g.cat.Close()
		g.instances, err = g.cat.Instances(ctx)
	}
	if err != nil {
		g.error("%v", err)
		return plainError("Failed to connect to database, exiting without action. " +
			"This script can only be run when the database is up.")
	}
	switch {
	case g.list:
		return g.listAll(ctx)
	case g.show != "":
		return g.showOne(ctx)
	default:
		return g.edit(ctx)
	}
}

// target is the new text of the parameter on one instance.
type target struct {
	instance topology.Instance
	raw      string
}

func (g *gpconfig) edit(ctx context.Context) error {
	name := g.change + g.remove
	targets := g.targets()
	if !g.skipValidation {
		p, err := g.parameter(ctx, name)
		if err != nil {
			return err
		}
		if err := g.validate(p, targets); err != nil {
			return err
		}
	} else {
		for i := range targets {
			if !guc.IsToken(targets[i].raw) {
				targets[i].raw = guc.Quote(targets[i].raw)
			}
		}
		g.warnOfAddresses(name, targets)
	}
	failed := false
	for _, t := range targets {
		path := datadir.Dir(t.instance.Datadir).Conf()
		if g.verboseFlag {
			g.info("host=%s dir=%s", t.instance.Hostname, t.instance.Datadir)
		}
		var err error
		if g.remove != "" {
			err = guc.Remove(path, name)
		} else {
			err = guc.Set(path, name, t.raw)
		}
		if err != nil {
			g.error("failed updating the postgresql.conf files on host: %s msg:%v", t.instance.Hostname, err)
			failed = true
		}
	}
	params := shellJoin(rawArgs(ctx))
	if failed {
		g.error("finished with errors, parameter string '%s'", params)
		return exitWith(codeFailed, nil)
	}
	g.info("completed successfully with parameters '%s'", params)
	return nil
}

// targets are the instances to change, with the value as it was given.
func (g *gpconfig) targets() []target {
	var list []target
	for _, i := range g.instances {
		value, has := g.value, g.hasValue
		switch {
		case i.Content == topology.ContentCoordinator:
			if g.hasCoord {
				value, has = g.coordValue, true
			}
		case g.coordOnly:
			continue
		case i.Role == topology.RolePrimary && g.hasPrimary:
			value, has = g.primaryValue, true
		case i.Role == topology.RoleMirror && g.hasMirror:
			value, has = g.mirrorValue, true
		}
		if has || g.remove != "" {
			list = append(list, target{i, value})
		}
	}
	return list
}

// parameter finds what is known of a parameter: in the table of Greenplum's,
// or in the server's list of its own.
func (g *gpconfig) parameter(ctx context.Context, name string) (*guc.Parameter, error) {
	lower := strings.ToLower(name)
	if p, ok := guc.Lookup(name); ok {
		if notModifiable[lower] {
			return nil, g.fatal("not a modifiable GUC: '%s'", name)
		}
		return p, nil
	}
	if p, ok := guc.LookupProxy(name); ok {
		return p, nil
	}
	s, err := g.cat.Setting(ctx, name)
	if err != nil {
		return nil, err
	}
	if s == nil {
		if _, err := g.cat.Live(ctx, name); err != nil {
			return nil, g.fatal("not a valid GUC: %s", name)
		}
		return nil, g.fatal("GUC Validation Failed: %s cannot be changed under normal conditions. "+
			"Please refer to gpconfig documentation.", name)
	}
	if s.context == guc.Internal.String() {
		return nil, g.fatal("not a modifiable GUC: '%s'", name)
	}
	if notByGPConfig[lower] {
		return nil, g.fatal("The parameter '%s' is not modifiable with this tool", name)
	}
	return s.parameter(), nil
}

// validate checks the values and puts them into the file's syntax.
func (g *gpconfig) validate(p *guc.Parameter, targets []target) error {
	if g.remove != "" {
		return nil
	}
	if p.Name == "max_connections" && !g.coordOnly && g.hasCoord {
		if err := g.checkConnections(p); err != nil {
			return err
		}
	}
	for i := range targets {
		t := &targets[i]
		value := t.raw
		if p.Name == guc.ProxyAddresses || p.Name == guc.OwnProxyAddresses || p.Type != guc.String {
			value = unquoted(value)
		}
		if _, err := p.Parse(value); err != nil && !isHiddenEnum(p, value) {
			return g.refused(err)
		}
		if p.Name == guc.ProxyAddresses && strings.TrimSpace(value) != "" {
			list, err := topology.ParseAddresses(value)
			if err == nil {
				err = topology.Validate(list, g.instances)
			}
			if err != nil {
				return g.fatal("new GUC value failed validation: %w", err)
			}
		}
		if t.raw = value; p.Type == guc.String || !guc.IsToken(value) {
			t.raw = guc.Quote(value)
		}
	}
	return nil
}

func (g *gpconfig) refused(err error) error {
	return g.fatal("new GUC value failed validation: %w", err)
}

// checkConnections holds Greenplum's rule for -v and -m together.
func (g *gpconfig) checkConnections(p *guc.Parameter) error {
	seg, err1 := p.Parse(g.value)
	coord, err2 := p.Parse(g.coordValue)
	if err1 != nil || err2 != nil {
		return g.refused(errors.New("invalid value for max_connections"))
	}
	if p.Int(seg) <= p.Int(coord) {
		return g.refused(errors.New("the value of max_connections must be greater on the segments than on the coordinator"))
	}
	return nil
}

// isHiddenEnum allows the spellings of on and off that pg_settings.enumvals
// leaves out.
func isHiddenEnum(p *guc.Parameter, value string) bool {
	if p.Type != guc.Enum || len(p.Enum) == 0 {
		return false
	}
	v, err := (&guc.Parameter{Type: guc.Bool}).Parse(value)
	if err != nil {
		return false
	}
	for _, e := range p.Enum {
		if e == v {
			return true
		}
	}
	return false
}

// warnOfAddresses says what is wrong with a list that is written all the same.
func (g *gpconfig) warnOfAddresses(name string, targets []target) {
	if !strings.EqualFold(name, guc.ProxyAddresses) || g.remove != "" || len(targets) == 0 {
		return
	}
	value := unquoted(targets[0].raw)
	list, err := topology.ParseAddresses(value)
	if err == nil && len(list) > 0 {
		err = topology.Validate(list, g.instances)
	}
	if err != nil {
		g.warn("%s, not validated: %v", guc.ProxyAddresses, err)
	}
}

// unquoted takes the quotes off a value that was given with the file's.
func unquoted(value string) string {
	if strings.HasPrefix(value, "'") && guc.IsToken(value) {
		if c, err := guc.ParseConf([]byte("x = " + value)); err == nil {
			v, _ := c.Get("x")
			return v
		}
	}
	return value
}

var shellSafe = regexp.MustCompile(`^[a-zA-Z0-9@%+=:,./_-]+$`)

// shellJoin writes arguments as a shell would take them.
func shellJoin(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if quoted[i] = a; !shellSafe.MatchString(a) {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'"'"'`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
