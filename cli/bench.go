package cli

import "github.com/spf13/cobra"

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
