package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"igcsearch/space"
)

type modelOptions struct {
	name                 string
	layout               string
	depth, classes, size int // 0: the layout's
	format               string
}

func newModelCommand() *cobra.Command {
	var o modelOptions
	cmd := &cobra.Command{
		Use:   "model NETWORK",
		Short: "Show the layers of a network, its parameters and multiply–adds",
		Long: `model shows a network by its name in the paper: its layers with their shapes,
parameters and multiply–adds, counted as the paper does: weights of convolutions
and the linear layer and the latter's biases, no batch norm; multiply–adds of
convolutions and the linear layer for one picture.

Names are IGC-L24M2, RegConv-W18, SumFusion and ResNet-C64. Behind them, +Ident.
adds identity mappings, and for IGC +2L doubles L in place of M from stage to
stage and, on ImageNet, the channels in the first unit; +Swap (primary 1×1,
secondary 3×3), +Proj (secondary over all channels), +1x3 (1×3 and 3×1 in place of
3×3), +5x5, +ReLU (between primary and secondary) and +B2 (a bottleneck of half
the channels) are the variants of Section 4.
IGC-L24M2/L12M8/L48M4 gives the partitions of each stage.`,
		Example: `  # Table 2 and 3: 20 layers, 151,834 parameters
  igcsearch model IGC-L24M2 --depth 20

  # the network of Figure 3
  igcsearch model IGC-L40M2 --layout flat --classes 100

  # Table 6
  igcsearch model IGC-L100M2+Ident.+2L --layout imagenet --format json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("model: want the name of one network, like IGC-L24M2, got %q", args)
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"IGC-L24M2", "IGC-L4M8", "IGC-L32M26", "IGC-L24M2+Ident.", "RegConv-W16", "RegConv-W18", "SumFusion", "ResNet-C64"}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return runModel(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addChoice(cmd, &o.layout, "layout", "how the stages follow each other (default stages, for ResNet and +2L imagenet)", "auto", string(space.Flat), string(space.Stages), string(space.ImageNet))
	cmd.Flags().IntVar(&o.depth, "depth", 0, "the depth D (default the paper's: 8 flat, 20 stages, 50 with identity mappings, 18 imagenet)")
	cmd.Flags().IntVar(&o.classes, "classes", 0, "the number of classes (default 10, for imagenet 1000)")
	cmd.Flags().IntVar(&o.size, "size", 0, "the side of the pictures (default 32, for imagenet 224)")
	addChoice(cmd, &o.format, "format", "how to print the layers", "table", "json")
	return cmd
}

// layerJSON is a layer as json prints it.
type layerJSON struct {
	Name         string `json:"name"`
	Kind         string `json:"kind"`
	Kernel       string `json:"kernel,omitempty"`
	Stride       int    `json:"stride,omitempty"`
	Partitions   int    `json:"partitions,omitempty"` // of the primary convolution
	Secondary    int    `json:"secondary_partitions,omitempty"`
	From         string `json:"from"`               // the layer that it reads
	Shortcut     string `json:"shortcut,omitempty"` // what is added
	In           [3]int `json:"in"`                 // channels, rows, columns
	Out          [3]int `json:"out"`
	Params       int    `json:"params"`
	MultiplyAdds int64  `json:"multiply_adds"`
}

func runModel(_ context.Context, o modelOptions, stdout io.Writer) error {
	s, err := space.ParseSystem(o.name)
	if err != nil {
		return usageError{err}
	}
	plan := space.Plan{Layout: space.Layout(o.layout), Depth: o.depth}
	if o.layout == "auto" {
		plan.Layout = space.Stages
		if s.Family == space.FamilyResNet || s.DoublesL {
			plan.Layout = space.ImageNet
		}
	}
	plan.Classes, plan.In = 10, space.Shape{C: 3, H: 32, W: 32}
	if plan.Layout == space.ImageNet {
		plan.Classes, plan.In = 1000, space.Shape{C: 3, H: 224, W: 224}
	}
	const most = 100_000
	for _, f := range []struct {
		name  string
		value int
	}{{"classes", o.classes}, {"size", o.size}, {"depth", o.depth}} {
		if f.value < 0 || f.value > most {
			return usageError{fmt.Errorf("--%s %d: want 1 to %d", f.name, f.value, most)}
		}
	}
	if o.classes > 0 {
		plan.Classes = o.classes
	}
	if o.size > 0 {
		plan.In.H, plan.In.W = o.size, o.size
	}
	n, err := s.Network(plan)
	if err != nil {
		return usageError{err}
	}
	name := func(i int) string {
		if i < 0 {
			return "pictures"
		}
		return n.Layers[i].Name
	}
	shape := func(s space.Shape) [3]int { return [3]int{s.C, s.H, s.W} }
	if o.format == "json" {
		layers := []layerJSON{}
		for _, l := range n.Layers {
			j := layerJSON{Name: l.Name, Kind: string(l.Kind), From: name(l.From), In: shape(l.In), Out: shape(l.Out), Params: l.Params, MultiplyAdds: l.MultiplyAdds}
			switch l.Kind {
			case space.IGC:
				j.Secondary = l.Out.C / l.Groups
				fallthrough
			case space.Conv:
				j.Kernel, j.Stride, j.Partitions = fmt.Sprintf("%dx%d", l.KH, l.KW), l.Stride, l.Groups
			case space.Add:
				j.Shortcut = name(l.Shortcut)
			}
			layers = append(layers, j)
		}
		return printJSON(stdout, struct {
			Name         string      `json:"name"`
			Depth        int         `json:"depth"`
			Params       int         `json:"params"`
			MultiplyAdds int64       `json:"multiply_adds"`
			Layers       []layerJSON `json:"layers"`
		}{n.Name, n.Depth, n.Params(), n.MultiplyAdds(), layers})
	}
	t := newTable("<layer", "<what", "<output", "params", "multiply–adds")
	for _, l := range n.Layers {
		params, madds := "", ""
		if l.Params > 0 {
			params, madds = humanize.Comma(int64(l.Params)), humanize.Comma(l.MultiplyAdds)
		}
		t.Add(l.Name, describe(l, name), l.Out.String(), params, madds)
	}
	_, err = fmt.Fprintf(stdout, "%s\n%s, D = %d, on pictures of %v, %d classes: %s parameters, %s multiply–adds.\n",
		t, n.Name, n.Depth, plan.In, plan.Classes, humanize.Comma(int64(n.Params())), humanize.Comma(n.MultiplyAdds()))
	return err
}

// describe says what a layer computes.
func describe(l space.Layer, name func(int) string) string {
	switch l.Kind {
	case space.Add:
		return fmt.Sprintf("+ %s, ReLU", name(l.Shortcut))
	case space.MaxPool:
		return "max pool 3×3, stride 2"
	case space.Pool:
		return "average pool"
	case space.Linear:
		return "linear"
	}
	parts := []string{l.String()}
	if l.Interleaved {
		parts = append(parts, "interleaved")
	}
	if l.Between {
		parts = append(parts, "a ReLU between")
	}
	if l.Stride > 1 {
		parts = append(parts, fmt.Sprintf("stride %d", l.Stride))
	}
	if l.Norm {
		parts = append(parts, "BN")
	}
	if l.ReLU {
		parts = append(parts, "ReLU")
	}
	return strings.Join(parts, ", ")
}
