package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/space"
	"igcsearch/trainer/interchange"
)

type modelOptions struct {
	name                 string
	layout               string
	depth, classes, size int // 0: the layout's
	format               string
	pytorch              bool
}

func newModelCommand() *cobra.Command {
	var o modelOptions
	cmd := &cobra.Command{
		Use:   "model NETWORK",
		Short: "Show the layers of a network, its parameters and multiply–adds",
		Long: `model shows the layers of a network with their shapes, parameters and
multiply–adds. It counts as the paper does: parameters are the weights of
convolutions and of the linear layer, and the biases of the latter, without batch
norm; multiply–adds are those of convolutions and the linear layer for one picture.

Networks have the names of the paper: IGC-L24M2, RegConv-W18, SumFusion and
ResNet-C64. Options follow the name. +Ident. adds identity mappings. For IGC, +2L
doubles L in place of M from stage to stage and, on ImageNet, doubles the channels
in the first unit. The variants of Section 4 are +Swap (primary 1×1, secondary
3×3), +Proj (secondary over all channels), +1x3 (1×3 and 3×1 in place of 3×3),
+5x5, +ReLU (between primary and secondary) and +B2 (a bottleneck of half the
channels); +1x1 has 1×1 primary convolutions. IGC-L24M2/L12M8/L48M4 gives the
partitions of each stage.

Other families have names likewise:
  IGCV2-M1K5K6K6    a 3×3 convolution of M channels in a partition, and 1×1
                    convolutions of K channels in a partition
  Monarch-M8        two 1×1 convolutions, M partitions of M channels each
  IGCV3-W32R6G2     W channels, R·W between two 1×1 convolutions of G partitions;
                    G2x4 is 2 and 4 partitions
  RegNetX-W48G4     W channels, 3×3 with G channels in a partition
  ShuffleNet-W48G3  W channels, W/4 between two 1×1 convolutions of G partitions
+Ident. is for IGCV2 and Monarch too; the blocks of the last three are residual units
of their own. A study names all of these networks in its systems.`,
		Example: `  # Table 2 and 3: 20 layers, 151,834 parameters
  igcsearch model IGC-L24M2 --depth 20

  # a network of another family, in the layout of Figure 3
  igcsearch model IGCV2-M1K5K6K6 --layout flat --classes 100

  # the network of Figure 3
  igcsearch model IGC-L40M2 --layout flat --classes 100

  # the same as a PyTorch module, which loads the files of 'igcsearch weights'
  igcsearch model IGC-L40M2 --layout flat --classes 100 --pytorch

  # Table 6
  igcsearch model IGC-L100M2+Ident.+2L --layout imagenet --format json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("model: want the name of one network, like IGC-L24M2, got %q", args)
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return networkNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return runModel(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addChoice(cmd, &o.layout, "layout",
		"how the stages follow each other (default stages, for ResNet and +2L imagenet)",
		"auto", string(space.Flat), string(space.Stages), string(space.ImageNet))
	cmd.Flags().IntVar(&o.depth, "depth", 0,
		"the depth D (default the paper's: 8 flat, 20 stages, 50 with identity mappings, 18 imagenet)")
	cmd.Flags().IntVar(&o.classes, "classes", 0, "the number of classes (default 10, for imagenet 1000)")
	cmd.Flags().IntVar(&o.size, "size", 0, "the side of the pictures (default 32, for imagenet 224)")
	addChoice(cmd, &o.format, "format", "how to print the layers", "table", "json")
	cmd.Flags().BoolVar(&o.pytorch, "pytorch", false, "print the network as a PyTorch module, in Python")
	return cmd
}

func runModel(_ context.Context, o modelOptions, stdout io.Writer) error {
	if o.pytorch && o.format != "table" {
		return usageError{errors.New("--pytorch and --format: give one of them")}
	}
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
	if o.pytorch {
		return interchange.WritePyTorch(stdout, n, plan)
	}
	return report.Layers{Network: n, Plan: plan}.Print(stdout, o.format)
}

// networkNames are names of networks to complete: of each family, and what its name can have behind it.
func networkNames() (list []string) {
	list = []string{"IGC-L4M8", "IGC-L32M26", "RegConv-W16"}
	options := []string{"Ident.", "2L", string(space.Bottleneck(2))}
	for _, v := range space.Variants {
		options = append(options, string(v))
	}
	for _, name := range space.Examples() {
		list = append(list, name)
		for _, option := range options {
			if s, err := space.ParseSystem(name + "+" + option); err == nil && s.String() == name+"+"+option {
				list = append(list, s.String())
			}
		}
	}
	return list
}
