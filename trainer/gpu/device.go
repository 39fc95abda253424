//go:build gpu

package gpu

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"igcsearch/search"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/gpu/driver"
)

// The code of the kernels: machine code of some devices, and PTX for any device of
// compute capability 7.0 or later, which the driver translates once and stores.
//
//go:embed kernels/cubin/*/*.cubin.gz kernels/ptx/*.ptx.gz
var code embed.FS

// Devices lists the GPUs of this machine. The error says in one line why there
// is none.
func Devices() ([]Info, error) {
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("no GPU: %w", err)
	}
	if n == 0 {
		why := driver.Why()
		if why == "" {
			why = "the driver has none"
		}
		return nil, fmt.Errorf("no GPU: %s", why)
	}
	if v := cu.Version(); v < oldestDriver {
		return nil, fmt.Errorf("no GPU: the driver is one for CUDA %s, igcsearch needs one for %s or later: "+
			"install NVIDIA's driver 520 or a later one", version(v), version(oldestDriver))
	}
	var list []Info
	for i := range n {
		info, e := describe(i)
		if e != nil { // the other devices may work
			err = fmt.Errorf("no GPU: GPU %d: the driver does not describe it: %w", i, e)
			continue
		}
		list = append(list, info)
	}
	if len(list) > 0 {
		err = nil
	}
	return list, err
}

// oldestDriver is the version of CUDA whose compiler made the kernels: a driver for an
// older one need not understand them.
const oldestDriver = 11080

// version is "11.8" for 11080.
func version(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// describe asks the driver about a device. It does not know the free memory, which
// needs a context.
func describe(index int) (Info, error) {
	d := cu.Device(index)
	name, err := d.Name()
	if err != nil {
		return Info{}, err
	}
	memory, err := d.TotalMem()
	if err != nil {
		return Info{}, err
	}
	major, minor, err := d.ComputeCapability()
	if err != nil {
		return Info{}, err
	}
	sms, err := d.Attribute(cu.MultiprocessorCount)
	if err != nil {
		return Info{}, err
	}
	return Info{Index: index, Name: name, Capability: fmt.Sprintf("sm_%d%d", major, minor),
		Driver: "CUDA " + version(cu.Version()),
		Memory: int(memory), Multiprocessors: sms}, nil
}

// Device is a GPU. It is safe for concurrent use.
type Device struct {
	info Info
	ctx  cu.CUContext // the primary one, which all trainings share

	mu        sync.Mutex
	fault     error // what made the context useless; nil: nothing
	modules   map[string]cu.Module
	functions map[string]cu.Function
	pictures  map[*dataset.Set]*pictures
	pools     map[poolKey]*pool

	// Tests set these: bytes that stay free behind each buffer, and what runs a
	// plan in place of its graph.
	gap     int
	instead func(m *Model, r *recorded) error
}

// Open prepares a GPU for trainings. It stays open until Close.
func Open(index int) (*Device, error) {
	list, err := Devices()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(info Info) bool { return info.Index == index })
	if i < 0 {
		return nil, fmt.Errorf("no GPU %d: this machine has %d, counted from 0", index, len(list))
	}
	d := &Device{info: list[i], modules: map[string]cu.Module{}, functions: map[string]cu.Function{},
		pictures: map[*dataset.Set]*pictures{}, pools: map[poolKey]*pool{}}
	if !d.info.Supported() {
		return nil, fmt.Errorf("%s: compute capability %s, want sm_70 or later", d.info.Name, d.info.Capability)
	}
	// Waiting threads sleep: the host has other trainings to feed.
	if err := cu.Device(index).SetPrimaryCtxFlags(cu.SchedBlockingSync); err != nil {
		return nil, d.explain(err)
	}
	if d.ctx, err = cu.Device(index).RetainPrimaryCtx(); err != nil {
		return nil, d.explain(err)
	}
	err = d.do(func() error {
		free, _, err := cu.MemInfo()
		d.info.Free = int(free)
		return err
	})
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close gives up the device. All its models are closed before; after a fault they are
// gone with its context, and no error is told: if the next Open does not work either,
// that says so.
func (d *Device) Close() {
	device := cu.Device(d.info.Index)
	if d.failed() != nil {
		_ = device.ResetPrimaryCtx() // which leaves it retained
	}
	_ = device.ReleasePrimaryCtx()
}

func (d *Device) failed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}

// Info describes the device; Free is what was free when it was opened.
func (d *Device) Info() Info { return d.info }

// do calls f on a thread that uses the device. After a fault it does not: every call
// would return the same error.
func (d *Device) do(f func() error) error {
	if err := d.failed(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cu.SetCurrentContext(d.ctx); err != nil {
		return d.explain(err)
	}
	return d.explain(f())
}

// explain adds what a caller must know of an error: the device, that its memory is too
// small, or that it has failed.
func (d *Device) explain(err error) error {
	if err == nil || errors.Is(err, search.ErrDevice) {
		return err
	}
	if name := faultIn(err); name != "" {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.fault == nil {
			d.fault = faultError{d.info.String(), name}
		}
		return d.fault
	}
	switch {
	case errors.Is(err, ErrMemory):
		return err
	case errors.Is(err, cu.OutOfMemory):
		return fmt.Errorf("%w: %w", ErrMemory, err)
	}
	return fmt.Errorf("%s: %w", d.info.Name, err)
}

// function loads a kernel.
func (d *Device) function(kernel string) (cu.Function, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, ok := d.functions[kernel]; ok {
		return f, nil
	}
	name := moduleOf(kernel)
	module, ok := d.modules[name]
	if !ok {
		image, err := d.info.code(name)
		if err != nil {
			return cu.Function{}, fmt.Errorf("kernel %s: %w", kernel, err)
		}
		if module, err = cu.LoadData(image); err != nil {
			return cu.Function{}, fmt.Errorf("load kernels %s: %w", name, err)
		}
		d.modules[name] = module
	}
	f, err := module.Function(kernel)
	if err != nil {
		return cu.Function{}, fmt.Errorf("kernel %s: %w", kernel, err)
	}
	d.functions[kernel] = f
	return f, nil
}

// code is a module's machine code for the device, or its PTX if there is none.
func (i Info) code(module string) (string, error) {
	file := "kernels/ptx/" + module + ".ptx.gz"
	if m := i.machine(); m != "" {
		file = "kernels/cubin/" + m + "/" + module + ".cubin.gz"
	}
	packed, err := code.ReadFile(file)
	if err != nil {
		return "", err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	image, err := io.ReadAll(z)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return string(image), nil
}

// alloc returns memory of the device that the thread uses.
func alloc(what string, n int) (cu.DevicePtr, error) {
	p, err := cu.MemAlloc(int64(max(n, align)))
	if err == cu.OutOfMemory {
		free, _, _ := cu.MemInfo()
		return 0, fmt.Errorf("%w: %s needs %d MB, %d MB are free", ErrMemory, what, n>>20, free>>20)
	}
	if err != nil {
		return 0, fmt.Errorf("allocate %d MB: %w", n>>20, err)
	}
	return p, nil
}

// upload copies a slice to the device, in the order of the stream. The slice must
// not change, nor be collected, before the stream is synchronised: the driver may read
// it at any time until then. Copies without a stream would not wait for those of a
// stream, and would not be waited for.
func upload[T any](stream cu.Stream, to uint64, s []T) error {
	if len(s) == 0 {
		return nil
	}
	return cu.MemcpyHtoDAsync(cu.DevicePtr(to), unsafe.Pointer(unsafe.SliceData(s)), int64(len(bytesOf(s))), stream)
}

// download copies from the device to a slice, in the order of the stream. The slice has
// the values when the stream is synchronised.
func download[T any](stream cu.Stream, s []T, from uint64) error {
	if len(s) == 0 {
		return nil
	}
	return cu.MemcpyDtoHAsync(unsafe.Pointer(unsafe.SliceData(s)), cu.DevicePtr(from), int64(len(bytesOf(s))), stream)
}

// pictures is a data set on the device.
type pictures struct {
	users         int
	pixels        *buffer // all pictures of its splits, one split after the other
	labels, table *buffer
	first         map[*dataset.Split]int // place of the split's pixels

	memory cu.DevicePtr // of the table
	shared *pool
}

// pool has the pixels and labels of pictures, which the sets of several seeds share.
type pool struct {
	users          int
	memory         cu.DevicePtr
	pixels, labels *buffer
	first          map[*byte]int // by dataset.Split.Pixels
	list           []int32       // the labels: their copy reads them until hold has waited for it
}

// poolKey is where the pixels of the three splits begin.
type poolKey [3]*byte

func splitsOf(set *dataset.Set) [3]*dataset.Split {
	return [3]*dataset.Split{&set.Train, &set.Validation, &set.Test}
}

func keyOf(set *dataset.Set) (key poolKey) {
	for i, s := range splitsOf(set) {
		key[i] = unsafe.SliceData(s.Pixels)
	}
	return key
}

// hold returns a data set's pictures on the device, which several trainings share;
// release gives them back. It is nil for a set whose pixels are not in memory.
func (d *Device) hold(set *dataset.Set, stream cu.Stream) (_ *pictures, err error) {
	if set.Train.Pixels == nil {
		return nil, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pictures[set]; p != nil {
		p.users++
		return p, nil
	}
	p := &pictures{users: 1, first: map[*dataset.Split]int{}, table: kept("table", 4*dataset.Channels*256)}
	if p.shared, err = d.holdPool(set, stream); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.releasePool(set)
		}
	}()
	p.pixels, p.labels = p.shared.pixels, p.shared.labels
	for _, s := range splitsOf(set) {
		p.first[s] = p.shared.first[unsafe.SliceData(s.Pixels)]
	}
	if p.memory, err = alloc("the table of "+set.Name, p.table.bytes); err != nil {
		return nil, err
	}
	p.table.addr = uint64(p.memory)
	table := set.Table()
	if err = upload(stream, p.table.addr, table[:]); err == nil {
		err = stream.Synchronize() // other trainings use the pictures on other streams
	}
	runtime.KeepAlive(&table)
	if err != nil {
		_ = cu.MemFree(p.memory)
		return nil, fmt.Errorf("copy the data set %s: %w", set.Name, err)
	}
	d.pictures[set] = p
	return p, nil
}

// holdPool is hold for the pixels and labels. Its copies are not complete yet.
func (d *Device) holdPool(set *dataset.Set, stream cu.Stream) (*pool, error) {
	key := keyOf(set)
	if p := d.pools[key]; p != nil {
		p.users++
		return p, nil
	}
	p := &pool{users: 1, first: map[*byte]int{}}
	var pieces [][]byte
	bytes := 0
	for i, s := range splitsOf(set) {
		if _, twice := p.first[key[i]]; twice {
			continue
		}
		p.first[key[i]] = len(p.list)
		pieces = append(pieces, s.Pixels)
		bytes += len(s.Pixels)
		for _, l := range s.PixelLabels() {
			p.list = append(p.list, int32(l))
		}
	}
	p.pixels, p.labels = kept("pixels", bytes), kept("label list", 4*len(p.list))
	p.labels.addr = uint64(ceil(bytes, align) * align)
	var err error
	if p.memory, err = alloc("the data set "+set.Name, int(p.labels.addr)+p.labels.bytes); err != nil {
		return nil, err
	}
	p.pixels.addr += uint64(p.memory)
	p.labels.addr += uint64(p.memory)
	at := p.pixels.addr
	for _, piece := range pieces {
		if err == nil {
			err = upload(stream, at, piece)
		}
		at += uint64(len(piece))
	}
	if err == nil {
		err = upload(stream, p.labels.addr, p.list)
	}
	if err != nil {
		_ = cu.MemFree(p.memory)
		return nil, fmt.Errorf("copy the data set %s: %w", set.Name, err)
	}
	d.pools[key] = p
	return p, nil
}

func (d *Device) release(set *dataset.Set) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pictures[set]; p != nil {
		if p.users--; p.users == 0 {
			_ = cu.MemFree(p.memory)
			delete(d.pictures, set)
			d.releasePool(set)
		}
	}
}

func (d *Device) releasePool(set *dataset.Set) {
	key := keyOf(set)
	if p := d.pools[key]; p != nil {
		if p.users--; p.users == 0 {
			_ = cu.MemFree(p.memory)
			delete(d.pools, key)
		}
	}
}
