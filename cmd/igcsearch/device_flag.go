package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
)

// device is a flag for what trains: "auto", "cpu", "cuda", or "cuda:0,cuda:1".
// Its zero value is "auto".
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

// choose returns the GPUs that the flag means, of those that are there. An empty
// list stands for the processor. why says why no GPU is there.
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
			return nil, fmt.Errorf("--device %s: there is no cuda:%d: this machine has %s, counted from 0",
				d, n, report.Count(len(there), "GPU"))
		}
		list = append(list, there[i])
	}
	return list, nil
}

// gpus returns the GPUs that the flag means, none for the processor. If the
// program was built for GPUs but finds none, it says so before it trains on the
// processor.
func (d *device) gpus(stderr io.Writer) ([]gpu.Info, error) {
	if d.String() == "cpu" {
		return nil, nil // without asking a driver
	}
	there, why := gpu.Devices()
	if why != nil && d.String() == "auto" && gpu.Built {
		fmt.Fprintf(stderr, "igcsearch: training on the CPU: %v\n", why)
	}
	return d.choose(there, why)
}

// arithmetic returns what is recorded of an attempt on these GPUs, or on the
// processor if there are none: the devices, and the arithmetic that decides the
// bits of the results.
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
	cmd.Flags().Var(value, "device",
		"what trains: auto (all GPUs, the CPU if there are none), cpu, cuda (all GPUs), or GPUs like cuda:0,cuda:1")
	if err := cmd.RegisterFlagCompletionFunc("device", completeDevices); err != nil {
		panic(err) // the flag exists: it was added above
	}
}

func completeDevices(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names := []string{"auto", "cpu"}
	gpus, _ := gpu.Devices() // a machine without GPUs is no error here
	if len(gpus) > 0 {
		names = append(names, "cuda")
	}
	for _, g := range gpus {
		names = append(names, fmt.Sprintf("cuda:%d\t%s", g.Index, g.Name))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
