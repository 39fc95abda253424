package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/kernel"
)

type devicesOptions struct{ format string }

func newDevicesCommand() *cobra.Command {
	var o devicesOptions
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List what this machine can train on",
		Long: `devices lists the CPU with its instruction sets, the best first, and each GPU by
the name that --device takes, or says why there is none. Below them it says by which
instructions the CPU multiplies in bfloat16; where these are emulated, a training in
that precision is slow. The cores of the CPU are
those that Go may use; the cores of a GPU are its multiprocessors.`,
		Example: `  igcsearch devices
  igcsearch devices --format json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			gpus, why := gpu.Devices()
			return runDevices(cmd.Context(), o, gpus, why, cmd.OutOrStdout())
		},
	}
	addChoice(cmd, &o.format, "format", "how to print them", "table", "json")
	return cmd
}

// gpuJSON is a GPU as devices prints it.
type gpuJSON struct {
	Device          string `json:"device"` // as --device takes it
	Name            string `json:"name"`
	Capability      string `json:"capability"`
	Arithmetic      string `json:"arithmetic"` // as an attempt records it
	Multiprocessors int    `json:"multiprocessors"`
	MemoryBytes     int    `json:"memory_bytes"`
	FreeBytes       int    `json:"free_bytes"`
	Driver          string `json:"driver"`
}

// runDevices prints the processor and the GPUs; why says why there are no GPUs.
func runDevices(_ context.Context, o devicesOptions, gpus []gpu.Info, why error, stdout io.Writer) error {
	var isas []string
	for _, isa := range kernel.Available() {
		isas = append(isas, isa.String())
	}
	multipliers, err := trainer.Multipliers(kernel.Available()[0])
	if err != nil {
		return err
	}
	cores := runtime.GOMAXPROCS(0)
	list := []gpuJSON{}
	for _, g := range gpus {
		if d, err := gpu.Open(g.Index); err == nil { // only a GPU that is open knows its free memory
			g = d.Info()
		}
		list = append(list, gpuJSON{
			fmt.Sprintf("cuda:%d", g.Index), g.Name, g.Capability, g.Arithmetic(), g.Multiprocessors, g.Memory, g.Free, g.Driver,
		})
	}
	reason := ""
	if why != nil {
		reason = why.Error()
	}
	if o.format == "json" {
		type cpuJSON struct {
			Name       string               `json:"name"`
			Cores      int                  `json:"cores"`
			ISAs       []string             `json:"isas"` // the best first
			Precisions []trainer.Multiplier `json:"precisions"`
		}
		return report.JSON(stdout, struct {
			CPU   cpuJSON   `json:"cpu"`
			GPUs  []gpuJSON `json:"gpus"`
			NoGPU string    `json:"no_gpu,omitempty"` // why there is none
		}{cpuJSON{trainer.CPU(), cores, isas, multipliers}, list, reason})
	}
	t := report.NewTable("<device", "<name", "<arithmetic", "cores", "memory (GiB)", "free (GiB)", "<driver")
	t.Add("cpu", trainer.CPU(), strings.Join(isas, " "), strconv.Itoa(cores), "", "", "")
	gib := func(bytes int) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<30)) }
	for _, g := range list {
		t.Add(g.Device, g.Name, strings.TrimPrefix(g.Arithmetic, "cuda "), strconv.Itoa(g.Multiprocessors),
			gib(g.MemoryBytes), gib(g.FreeBytes), g.Driver)
	}
	var bfloat16 []string
	for _, m := range multipliers {
		if search.Bfloat16(m.Precision) {
			bfloat16 = append(bfloat16, m.Precision+" by "+m.Instruction)
		}
	}
	if reason != "" {
		reason += "\n"
	}
	_, err = fmt.Fprintf(stdout, "%s\nbfloat16 on the CPU: %s\n%s", t, strings.Join(bfloat16, "; "), reason)
	return err
}
