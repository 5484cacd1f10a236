package cli

import "github.com/spf13/cobra"

var _ = register(newBenchCommand)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast proxies are",
	}
	cmd.AddCommand(newBenchProxyCommand(), newBenchInterconnectCommand(), newBenchRelayCommand(), newBenchProbeCommand())
	return cmd
}
