package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Package is what the rules need to know of one package, with import paths
// cut down to the part below the module ("mpp/plan").
type Package struct {
	Path    string
	Name    string
	Doc     string   // first sentence of the package comment
	Imports []string // by its files proper
	Tests   []string // by its test files
	GoFiles int      // not counting tests
}

// layers is the house from the ground up. A package belongs to the entry that
// is its path or a parent of it, and may import its own layer's entry and
// every lower one. Two entries of one layer do not know each other.
var layers = [][]string{
	{"internal/atomicfile", "internal/benchreport", "internal/freeport", "internal/iov", "internal/pgenv", "internal/tpch"},
	{"internal/local"}, // helpers under everything, no part of the house
	{"icwire", "topology", "datadir"},
	{"guc"}, // checks an address list by topology's parser, so that there is one
	{"proxy"},
	{"motion"},
	{"mpp"},
	{"instance", "sim", "internal/testkit/wan"}, // wan: an emulated network, which benches run on as well
	{"cluster", "internal/proxybench"},
	{"internal/icbench", "internal/querybench"}, // measure whole clusters
	{"cli"},
	{"cmd"},
}

// testOnly are the packages that only tests, and they themselves, may import,
// except for those with a place in the layers.
var testOnly = []string{"internal/testkit", "internal/randomsql", "internal/clustertest", "internal/lint"}

// only are the packages that know no others of the module than these: to
// measure proxies is to use them as everybody else does, and a network knows
// nothing of what runs on it.
var only = map[string][]string{
	"internal/testkit/wan": nil,
	"sim":                  nil,
	"internal/proxybench":  {"icwire", "topology", "datadir", "proxy", "internal/testkit/wan", "internal/benchreport", "internal/freeport"},
}

// Check returns a sentence for each broken rule, in the order of pkgs.
func Check(pkgs []Package) []string {
	var broken []string
	report := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	for _, p := range pkgs {
		if p.Doc == "" && p.GoFiles > 0 {
			report("%s has no package comment", p.Path)
		}
		if forTests(p.Path) {
			continue
		}
		own := layer(p.Path)
		if own < 0 {
			report("%s has no place in the layers of internal/lint: give it one", p.Path)
			continue
		}
		for _, imp := range p.Imports {
			if forTests(imp) {
				report("%s imports %s, which is for tests only", p.Path, imp)
			} else if !allowed(p.Path, imp) {
				report("%s imports %s: imports go down only", p.Path, imp)
			} else if few, ok := only[p.Path]; ok && !slices.Contains(few, imp) {
				report("%s imports %s: it may import %s only", p.Path, imp, cmp.Or(strings.Join(few, ", "), "the standard library and other modules"))
			}
		}
		for _, imp := range p.Tests {
			if !under(imp, testOnly) && !allowed(p.Path, imp) {
				report("the tests of %s import %s: imports go down only", p.Path, imp)
			}
		}
	}
	return broken
}

func allowed(from, to string) bool {
	a, b := layer(from), layer(to)
	if a == b {
		return entry(from) == entry(to)
	}
	return b >= 0 && b < a
}

func forTests(path string) bool { return under(path, testOnly) && layer(path) < 0 }

func layer(path string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return under(path, l) })
}

// entry is the layer entry that path lies under; "" when none.
func entry(path string) string {
	for _, l := range layers {
		for _, e := range l {
			if under(path, []string{e}) {
				return e
			}
		}
	}
	return ""
}

func under(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool {
		return path == r || strings.HasPrefix(path, r+"/")
	})
}
