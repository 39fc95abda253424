package graph

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"igcsearch/space"
)

// TestProgramIsTheGraph compares the program, whose gradients we write down, with
// the graph, whose gradients Gorgonia derives: the same ops, each of which reads
// the activations and gradients that the same ops made.
func TestProgramIsTheGraph(t *testing.T) {
	for _, name := range []string{"IGC-L4M3", "SumFusion", "IGC-L4M2+Proj", "IGC-L4M2+1x3", "IGC-L4M2+Ident.",
		"IGC-L4M2+Ident.+B2", "IGC-L4M2+Ident.+2L", "RegConv-W6+Ident.", "ResNet-C6"} {
		t.Run(name, func(t *testing.T) {
			s, err := space.ParseSystem(name)
			if err != nil {
				t.Fatal(err)
			}
			plan := space.Plan{Layout: space.Stages, Depth: 8, In: space.Shape{C: 3, H: 33, W: 33}, Classes: 3}
			if s.Family == space.FamilyResNet || s.DoublesL {
				plan.Layout, plan.Depth = space.ImageNet, 10
			}
			if s.Family == space.FamilyResNet {
				plan.Depth = 18
			}
			net, err := s.Network(plan)
			if err != nil {
				t.Fatal(err)
			}
			m, err := New(net, 3, Options{Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			got, want := ofProgram(&m.Program), ofGraph(m.train.exec.(*walk))
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("the program is\n%s\nthe graph is\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// reads writes an op as its name and the sorted names of the ops that made what
// it reads. What lies between the network's end and its gradient is left out: it
// has memory of its own in both.
func reads(op string, from ...string) string {
	if strings.HasPrefix(op, "fc") || op == "cross_entropy" {
		return op
	}
	from = slices.DeleteFunc(from, func(name string) bool { return name == "" || name == "pool" || name == "fc.grad" })
	slices.Sort(from)
	return fmt.Sprintf("%s(%s)", op, strings.Join(from, ", "))
}

// ofGraph lists the ops of a graph.
func ofGraph(w *walk) (list []string) {
	made := map[int]string{} // by the index of the value
	for _, s := range w.steps {
		var from []string
		for _, in := range s.in {
			from = append(from, made[in])
		}
		switch op := s.op.(type) {
		case *part: // another op computes it
			continue
		case *sum:
			slices.Sort(from)
			made[s.out] = "sum(" + strings.Join(from, ", ") + ")"
			list = append(list, reads("sum", from...))
			continue
		default:
			made[s.out], _, _ = strings.Cut(op.(fmt.Stringer).String(), "#")
		}
		list = append(list, reads(made[s.out], from...))
	}
	return list
}

// ofProgram lists the ops of a program in the same way.
func ofProgram(p *Program) (list []string) {
	made := map[Value]string{}
	say := func(to Value, op string, from ...Value) {
		var names []string
		for _, v := range from {
			names = append(names, made[v])
		}
		list = append(list, reads(op, names...))
		if op == "sum" {
			slices.Sort(names)
			op = "sum(" + strings.Join(names, ", ") + ")"
		}
		if to != None {
			made[to] = op
		}
	}
	for _, i := range slices.Concat(p.Forward, p.Backward) {
		switch i := i.(type) {
		case *Conv:
			say(i.Z, i.Name, i.X)
		case *ConvGrad:
			say(i.GX, i.Of.Name+".grad", i.Of.X, i.Of.Z, i.G)
		case *Add:
			say(i.Out, i.Name, i.Z, i.X)
		case *AddGrad:
			say(i.GX, i.Of.Name+".grad", i.Of.Z, i.Of.X, i.Of.Out, i.G)
		case *MaxPool:
			say(i.Out, i.Name, i.Z)
		case *MaxPoolGrad:
			say(i.GX, i.Of.Name+".grad", i.Of.Z, i.Of.Out, i.G)
		case *Pool:
			say(None, "pool", i.Z)
		case *PoolGrad:
			say(i.GX, "pool.grad", i.Of.Z)
		case *Linear:
			say(None, "fc")
		case *LinearGrad:
			say(None, "fc.grad")
		case *CrossEntropy:
			say(None, "cross_entropy")
		case *Sum:
			say(i.To, "sum", i.A, i.B)
		}
	}
	return list
}
