//go:build gpu

package gpu

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"gorgonia.org/cu"

	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// watched is a GPU that runs plans by watch.
var watched = sync.OnceValues(func() (*Device, error) {
	d, err := Open(0)
	if err == nil {
		d.gap, d.instead = align, watch
	}
	return d, err
})

// watch runs a plan launch by launch. Behind each buffer is a gap of 0xFF, which
// every launch must leave as it is. A buffer itself is full of 0xFF, which is NaN in
// floats of both sizes, before the first launch that uses it and after the last one.
func watch(m *Model, r *recorded) error {
	spoil := func(b *buffer, from, bytes int) error {
		return cu.MemsetD8Async(cu.DevicePtr(b.addr)+cu.DevicePtr(from), 0xFF, int64(bytes), m.stream)
	}
	live := append(m.tensors.kept(), m.state, m.order, m.rates)
	var passing []*buffer
	for _, b := range r.buffers {
		if b.kept {
			live = append(live, b)
		} else if b.first >= 0 {
			passing = append(passing, b)
		}
	}
	for _, b := range live {
		if err := spoil(b, b.bytes, m.d.gap); err != nil {
			return err
		}
	}
	for i, l := range r.launches {
		for _, b := range passing {
			if b.first == i {
				if err := spoil(b, 0, b.bytes+m.d.gap); err != nil {
					return err
				}
				live = append(live, b)
			}
		}
		if err := errors.Join(m.start(l, m.stream), m.stream.Synchronize()); err != nil {
			return err
		}
		for _, b := range live {
			if err := b.intact(m, m.d.gap); err != nil {
				return fmt.Errorf("launch %d, %s, %w", i, l.kernel, err)
			}
		}
		live = slices.DeleteFunc(live, func(b *buffer) bool { return !b.kept && b.last == i })
		for _, b := range passing {
			if b.last == i {
				if err := spoil(b, 0, b.bytes); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// intact returns an error if the gap behind a buffer was written to.
func (b *buffer) intact(m *Model, gap int) error {
	raw := make([]byte, gap)
	if err := errors.Join(download(m.stream, raw, b.addr+uint64(b.bytes)), m.stream.Synchronize()); err != nil {
		return err
	}
	if at := slices.IndexFunc(raw, func(x byte) bool { return x != 0xFF }); at >= 0 {
		return fmt.Errorf("writes to byte %d of buffer %q, which has %d", b.bytes+at, b.name, b.bytes)
	}
	return nil
}

// newOn is newTrained on a device and for any network.
func newOn(t *testing.T, open func() (*Device, error), net space.Network, set *dataset.Set, batch int) *Model {
	t.Helper()
	d, err := open()
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.New(net, batch, set, trainer.Recipe{Seed: 3, Momentum: 0.9, WeightDecay: 1e-4, DecayAll: true, Average: true,
		Precise: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	fill(m.host, names(m.host))
	push(t, m)
	return m
}

// bits returns what the buffers hold.
func (m *Model) bits(t *testing.T, buffers ...*buffer) (all []byte) {
	t.Helper()
	for _, b := range buffers {
		switch b { // these lie in the memory of the host
		case m.losses:
			all = append(all, bytesOf(m.heard.losses)...)
			continue
		case m.corrects:
			all = append(all, bytesOf(m.heard.corrects)...)
			continue
		}
		part := make([]byte, b.bytes)
		if err := m.d.do(func() error { return errors.Join(download(m.stream, part, b.addr), m.stream.Synchronize()) }); err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
	}
	return all
}

func ignore(int, trainer.Score) error { return nil }

// TestLaunchesKeepToTheirBuffers: no launch of a training, an evaluation or precise
// statistics writes outside of its buffers, and none reads what was not written or is
// over: the bits are those of the graphs.
func TestLaunchesKeepToTheirBuffers(t *testing.T) {
	const batch, side = 20, 8
	set := pictureSet(2*batch, 45, side)
	for _, c := range []struct {
		system string
		layout space.Layout
		depth  int
	}{
		{"IGC-L4M2", space.Flat, 4},
		{"IGC-L1M7", space.Flat, 5},
		{"IGC-L4M2/L2M8/L8M3", space.Stages, 8},
		{"IGC-L4M2+Ident.+ReLU", space.Stages, 8},
		{"IGC-L4M2+Ident.+5x5", space.Stages, 8},
		{"IGC-L4M4+B2", space.Stages, 5},
		{"SumFusion", space.Stages, 5},
		{"ResNet-C6", space.ImageNet, 18},
		{"IGCV2-M2K2K3", space.Flat, 4},
		{"IGCV3-W4R2G2", space.Stages, 8},
	} {
		t.Run(c.system, func(t *testing.T) {
			net := network(t, c.system, c.layout, c.depth, side, 3)
			order := dataset.Order(2*batch, 3, 1)
			var want []byte
			for _, open := range []func() (*Device, error){opened, watched} {
				m := newOn(t, open, net, set, batch)
				if err := m.Train(t.Context(), 1, order, rates(0, 2), ignore); err != nil {
					t.Fatal(err)
				}
				score := m.evaluate(t, order)
				got := append(m.bits(t, append(m.tensors.kept(), m.losses, m.corrects)...), fmt.Sprint(score)...)
				if want == nil {
					want = got
				} else if !slices.Equal(got, want) {
					t.Error("the bits are not those of the graphs: a launch reads what was not written or is over")
				}
			}
		})
	}
}

// TestWrongBuffersAreSeen: with any buffer of a plan taken to be shorter than it is, to
// begin after the first launch that uses it or to end before the last one, watch fails
// or the bits are others.
func TestWrongBuffersAreSeen(t *testing.T) {
	const batch = 20
	set := pictureSet(batch, 5, 8)
	m := newOn(t, watched, space.Figure3(space.Pair{L: 4, M: 2}, 2, space.Shape{C: 3, H: 8, W: 8}, 3), set, batch)
	step := func() ([]byte, error) {
		push(t, m)
		err := m.Train(t.Context(), 1, dataset.Order(batch, 3, 1), rates(0, 1), ignore)
		return m.bits(t, m.tensors.value, m.tensors.grad, m.tensors.stats, m.losses, m.corrects), err
	}
	right, err := step()
	if err != nil {
		t.Fatal(err)
	}
	type use struct{ first, last int }
	uses := map[*buffer]*use{}
	for i, l := range m.train.launches {
		visit(l.args, func(_ uintptr, b *buffer) {
			if u := uses[b.root()]; u != nil {
				u.last = i
			} else {
				uses[b.root()] = &use{i, i}
			}
		})
	}
	seen := 0
	for _, b := range m.train.buffers {
		if b.kept || b.first < 0 {
			continue
		}
		is, used := *b, uses[b]
		wrongs := map[string]buffer{"shorter": {bytes: is.bytes - 4, first: is.first, last: is.last}}
		if used.first < used.last { // else only its own launch needs what is there
			wrongs["begins late"] = buffer{bytes: is.bytes, first: used.first + 1, last: is.last}
			wrongs["ends early"] = buffer{bytes: is.bytes, first: is.first, last: used.last - 1}
		}
		for how, wrong := range wrongs {
			b.bytes, b.first, b.last = wrong.bytes, wrong.first, wrong.last
			got, err := step()
			*b = is
			switch {
			case how == "shorter" && (err == nil || !strings.Contains(err.Error(), b.name)):
				t.Errorf("%s, %d bytes, %s: error %v", b.name, is.bytes, how, err)
			case how != "shorter" && err == nil && slices.Equal(got, right):
				t.Errorf("%s, launches %d to %d, %s: the bits are right", b.name, used.first, used.last, how)
			}
			seen++
		}
	}
	if got, err := step(); err != nil || !slices.Equal(got, right) || seen < 60 {
		t.Errorf("after %d wrong buffers the right ones give other bits (%v)", seen, err)
	}
	t.Logf("%d wrong buffers are seen", seen)
}
