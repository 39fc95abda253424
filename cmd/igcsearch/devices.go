package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/kernel"
)

// device is a flag for what trains: "auto", "cpu", "cuda", or "cuda:0,cuda:1".
// Zero is "auto".
type device struct {
	text    string
	indices []int // of the GPUs that are named
}

func (d *device) String() string {
	if d.text == "" {
		return "auto"
	}
	return d.text
}
func (d *device) Type() string { return "DEVICE" }
func (d *device) Set(s string) error {
	*d = device{text: s}
	if slices.Contains([]string{"auto", "cpu", "cuda"}, s) {
		return nil
	}
	for _, name := range strings.Split(s, ",") {
		number, ok := strings.CutPrefix(name, "cuda:")
		n, err := strconv.Atoi(number)
		switch {
		case !ok || err != nil || n < 0 || strconv.Itoa(n) != number:
			return errors.New("want auto, cpu, cuda, or GPUs like cuda:0,cuda:1")
		case slices.Contains(d.indices, n):
			return fmt.Errorf("%s is there twice", name)
		}
		d.indices = append(d.indices, n)
	}
	return nil
}

// choose returns the GPUs that the flag means, of those there are; none stands
// for the processor. why says why there are none.
func (d *device) choose(there []gpu.Info, why error) ([]gpu.Info, error) {
	switch d.String() {
	case "cpu":
		return nil, nil
	case "auto":
		return slices.DeleteFunc(slices.Clone(there), func(g gpu.Info) bool { return !g.Supported() }), nil
	}
	if why != nil {
		return nil, fmt.Errorf("--device %s: %w", d, why)
	}
	if len(d.indices) == 0 {
		return there, nil
	}
	var list []gpu.Info
	for _, n := range d.indices {
		i := slices.IndexFunc(there, func(g gpu.Info) bool { return g.Index == n })
		if i < 0 {
			return nil, fmt.Errorf("--device %s: there is no cuda:%d: this machine has %s, counted from 0", d, n, count(len(there), "GPU"))
		}
		list = append(list, there[i])
	}
	return list, nil
}

// gpus are those that the flag means, none for the processor. Who built a
// program with GPUs is told if it found none to choose by itself.
func (d *device) gpus(stderr io.Writer) ([]gpu.Info, error) {
	if d.String() == "cpu" {
		return nil, nil // and no driver is asked
	}
	there, why := gpu.Devices()
	if why != nil && d.String() == "auto" && gpu.Built {
		fmt.Fprintf(stderr, "igcsearch: training on the CPU: %v\n", why)
	}
	return d.choose(there, why)
}

// arithmetic is what is recorded of an attempt on these GPUs, or on the
// processor if there are none: the devices, and whose bits the results are.
func arithmetic(gpus []gpu.Info) (devices, isa string, err error) {
	if len(gpus) == 0 {
		isa, err := trainer.ISA()
		return "cpu", isa, err
	}
	var names, isas []string
	for _, g := range gpus {
		if !slices.Contains(names, g.Name) {
			names = append(names, g.Name)
		}
		if !slices.Contains(isas, g.Arithmetic()) {
			isas = append(isas, g.Arithmetic())
		}
	}
	return strings.Join(names, ", "), strings.Join(isas, ", "), nil
}

func addDevice(cmd *cobra.Command, value *device) {
	cmd.Flags().Var(value, "device", "what trains: auto (all GPUs, the CPU if there are none), cpu, cuda (all GPUs), or GPUs like cuda:0,cuda:1")
	err := cmd.RegisterFlagCompletionFunc("device", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		names := []string{"auto", "cpu"}
		gpus, _ := gpu.Devices() // none is no error here
		if len(gpus) > 0 {
			names = append(names, "cuda")
		}
		for _, g := range gpus {
			names = append(names, fmt.Sprintf("cuda:%d\t%s", g.Index, g.Name))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag exists: it was added above
	}
}

type devicesOptions struct{ format string }

func newDevicesCommand() *cobra.Command {
	var o devicesOptions
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List what this machine can train on",
		Long: `devices lists the CPU with its instruction sets, the best first, and each GPU by
the name that --device takes, or says why there is none. Cores are those that Go
may use, of a GPU its multiprocessors.`,
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
	Multiprocessors int    `json:"multiprocessors"`
	MemoryBytes     int    `json:"memory_bytes"`
	FreeBytes       int    `json:"free_bytes"`
	Driver          string `json:"driver"`
}

// runDevices prints the processor and the GPUs; why says why there are none.
func runDevices(_ context.Context, o devicesOptions, gpus []gpu.Info, why error, stdout io.Writer) error {
	var isas []string
	for _, isa := range kernel.Available() {
		isas = append(isas, isa.String())
	}
	cores := runtime.GOMAXPROCS(0)
	list := []gpuJSON{}
	for _, g := range gpus {
		if d, err := gpu.Open(g.Index); err == nil { // its free memory is known to who uses it
			g = d.Info()
		}
		list = append(list, gpuJSON{fmt.Sprintf("cuda:%d", g.Index), g.Name, g.Capability, g.Multiprocessors, g.Memory, g.Free, g.Driver})
	}
	reason := ""
	if why != nil {
		reason = why.Error()
	}
	if o.format == "json" {
		type cpuJSON struct {
			Name  string   `json:"name"`
			Cores int      `json:"cores"`
			ISAs  []string `json:"isas"` // the best first
		}
		return printJSON(stdout, struct {
			CPU   cpuJSON   `json:"cpu"`
			GPUs  []gpuJSON `json:"gpus"`
			NoGPU string    `json:"no_gpu,omitempty"` // why there is none
		}{cpuJSON{trainer.CPU(), cores, isas}, list, reason})
	}
	t := newTable("<device", "<name", "<arithmetic", "cores", "memory (GiB)", "free (GiB)", "<driver")
	t.Add("cpu", trainer.CPU(), strings.Join(isas, " "), strconv.Itoa(cores), "", "", "")
	gib := func(bytes int) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<30)) }
	for _, g := range list {
		t.Add(g.Device, g.Name, g.Capability, strconv.Itoa(g.Multiprocessors), gib(g.MemoryBytes), gib(g.FreeBytes), g.Driver)
	}
	if reason != "" {
		reason = fmt.Sprintf("\n%s\n", reason)
	}
	_, err := fmt.Fprintf(stdout, "%s%s", t, reason)
	return err
}
