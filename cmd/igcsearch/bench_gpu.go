package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/bench"
	"igcsearch/trainer/gpu"
)

// gpuBenchJSON is one measurement on a GPU as json prints it.
type gpuBenchJSON struct {
	System         string    `json:"system,omitempty"` // of --systems
	L              int       `json:"L"`
	M              int       `json:"M"`
	Params         int       `json:"params"` // of one block; of --systems of the network
	Batch          int       `json:"batch"`
	Precision      string    `json:"precision"`
	StepS          float64   `json:"step_s"` // alone
	ImagesPerS     float64   `json:"images_per_s"`
	Launches       int       `json:"launches"`
	DeviceBytes    int       `json:"device_bytes"`
	LaunchS        float64   `json:"launch_s"` // of the host to start a step, if it need not wait
	Queue          int       `json:"queue"`    // steps that it could start before it had to wait
	StartsS        []float64 `json:"starts_s"` // of the host to start each of these steps and those after them
	Device         string    `json:"device"`
	Driver         string    `json:"driver"`
	*gpuAllJSON              // nil if their measurement failed
	*gpuLimitsJSON           // likewise
	Error          string    `json:"error,omitempty"` // of what could not be measured
}

// gpuAllJSON is the measurement of several trainings at once.
type gpuAllJSON struct {
	Trials        int     `json:"trials"`
	AllImagesPerS float64 `json:"all_images_per_s"`
	AllGFLOPS     float64 `json:"all_gflops"`
	AllGBPerS     float64 `json:"all_gb_per_s"`
	Host          float64 `json:"host_cores_per_trial"`
}

// gpuLimitsJSON is what the GPU could do at most.
type gpuLimitsJSON struct {
	PeakGFLOPS  float64 `json:"peak_gflops"`
	BandwidthGB float64 `json:"bandwidth_gb_per_s"`
	Bound       string  `json:"bound"`
	Share       float64 `json:"share"` // of the bound, by all trainings together
}

// runGPUBench measures on the first of the chosen GPUs.
func runGPUBench(ctx context.Context, o benchOptions, info gpu.Info, stdout, stderr io.Writer) error {
	if o.has(search.PrecisionTF32) && !info.Has(search.PrecisionTF32) {
		return o.lacksPrecision(info.Arithmetic())
	}
	d, err := gpu.Open(info.Index)
	if err != nil {
		return err
	}
	b, err := newBencher(o, stdout, stderr)
	if err != nil {
		return err
	}
	b.columns = append(b.columns, report.Column{Header: "alone (ms)"}, report.Column{Header: "images/s"},
		report.Column{Header: "launches"}, report.Column{Header: "MB", Widest: "12345"},
		report.Column{Header: "start (µs)"}, report.Column{Header: "queue"}, report.Column{Header: "trials"},
		report.Column{Header: "images/s in all"}, report.Column{Header: "TFLOP/s"},
		report.Column{Header: "GB/s", Widest: "12345"}, report.Column{Header: "host (%)"},
		report.Column{Header: "<bound", Widest: "arithmetic"}, report.Column{Header: "% of it"})
	if o.peer != "" {
		b.columns = append(b.columns, report.Column{Header: "peer images/s"},
			report.Column{Header: "alone", Widest: "12.3×"}, report.Column{Header: "all", Widest: "12.3×"})
	}
	all := means{}
	err = b.each(func(s space.System) ([]measured, error) {
		r, err := bench.GPU(ctx, o.measure(s, o.precisions[0]), d, func(r bench.GPUResult) {
			// Trainings at once may hang, where one alone did not. What cannot be written here
			// cannot be written below either, which says so.
			_ = b.append(b.gpuLine(s, r, info, errors.New("the trainings at once are not measured yet")))
		})
		if err != nil && r.Step == 0 {
			return nil, err
		}
		m := b.gpuRow(s, r, info, all, err)
		if o.peer != "" && err == nil {
			m.peer = func() ([]string, error) {
				peer, err := b.runPeer(ctx, s.Pair())
				if peer.seconds == 0 {
					return nil, err
				}
				theirs := float64(r.Batch) / peer.seconds
				return []string{fmt.Sprintf("%.0f", theirs),
					fmt.Sprintf("%.1f×", all.add("alone ratio", r.AlonePerSecond()/theirs)),
					fmt.Sprintf("%.1f×", all.add("all ratio", r.AllPerSecond/theirs))}, err
			}
		}
		return []measured{m}, err
	})
	return b.end(err, []map[string]string{{"alone (ms)": "mean", "images/s": all.geometric("%.0f", "alone"),
		"images/s in all": all.geometric("%.0f", "all"), "% of it": all.geometric("%.0f", "share"),
		"alone": all.geometric("%.1f×", "alone ratio"), "all": all.geometric("%.1f×", "all ratio")}})
}

// gpuLine is a measurement for JSON. If there is an error, the last parts lack.
func (b *bencher) gpuLine(s space.System, r bench.GPUResult, info gpu.Info, failed error) gpuBenchJSON {
	_, params, system := b.name(s, r.Params)
	p := s.Pair()
	j := gpuBenchJSON{System: system, L: p.L, M: p.M, Params: params, Batch: r.Batch, Precision: b.precisions[0], StepS: r.Step.Seconds(),
		ImagesPerS: r.AlonePerSecond(), Launches: r.Launches, DeviceBytes: r.Memory, LaunchS: r.Launch.Seconds(),
		Queue: r.Queue, Device: info.Name, Driver: info.Driver}
	for _, start := range r.Starts {
		j.StartsS = append(j.StartsS, start.Seconds())
	}
	if r.Trials > 0 {
		stepsPerS := r.AllPerSecond / float64(r.Batch)
		j.gpuAllJSON = &gpuAllJSON{r.Trials, r.AllPerSecond, r.Flops * stepsPerS / 1e9,
			float64(r.Bytes) * stepsPerS / 1e9, r.Host}
	}
	if failed == nil {
		j.gpuLimitsJSON = &gpuLimitsJSON{r.PeakFlops / 1e9, r.Bandwidth / 1e9, r.Bound(), r.Share()}
	} else {
		j.Error = failed.Error()
	}
	return j
}

func (b *bencher) gpuRow(s space.System, r bench.GPUResult, info gpu.Info, all means, failed error) (m measured) {
	j := b.gpuLine(s, r, info, failed)
	name, _, _ := b.name(s, r.Params)
	m.row = append(name, fmt.Sprintf("%.3f", 1e3*j.StepS), fmt.Sprintf("%.0f", all.add("alone", j.ImagesPerS)),
		strconv.Itoa(j.Launches), fmt.Sprintf("%.0f", float64(j.DeviceBytes)/1e6), fmt.Sprintf("%.0f", 1e6*j.LaunchS),
		strconv.Itoa(j.Queue))
	if j.gpuAllJSON != nil {
		m.row = append(m.row, strconv.Itoa(j.Trials), fmt.Sprintf("%.0f", all.add("all", j.AllImagesPerS)),
			fmt.Sprintf("%.1f", j.AllGFLOPS/1e3), fmt.Sprintf("%.0f", j.AllGBPerS), fmt.Sprintf("%.1f", 100*j.Host))
	}
	limits := ""
	if j.gpuLimitsJSON != nil {
		m.row = append(m.row, j.Bound, fmt.Sprintf("%.0f", all.add("share", 100*j.Share)))
		limits = fmt.Sprintf(", peak %.1f TFLOP/s, copy %.0f GB/s", j.PeakGFLOPS/1e3, j.BandwidthGB)
	}
	m.caption = fmt.Sprintf("batch %d, %s, %s%s, median of %s; the mean is geometric", r.Batch, info.Name, info.Driver,
		limits, report.Count(int(b.steps), "step"))
	m.line = j
	return m
}
