package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store/fleet"
)

// runAccessWorker trains what a coordinator gives out.
func runAccessWorker(parent context.Context, o workerOptions, stderr io.Writer) error {
	if _, err := fleet.ReadAccess(o.access); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // to wait for the file would not help
	}
	m, err := openMachine(o.data, o.device, stderr)
	if err != nil {
		return err
	}
	log := progress.NewLog(stderr)
	ctx, soft, stop := listen(parent, o.grace, log.Note)
	defer stop()
	w := &accessWorker{machine: m, o: o, log: log}
	w.client = fleet.NewClient(fleet.ClientOptions{
		Access: o.access, Program: fleetProgram(), Study: o.study, Attempt: m.attempt,
		Load: w.load, Outbox: o.outbox, Note: log.Note,
	})
	log.Note(fmt.Sprintf("worker on %s, process %d, %s, for the coordinator of %s",
		cmp.Or(m.attempt.Host, "an unknown host"), m.attempt.PID, cmp.Or(m.attempt.Job, "no scheduler"), o.access))
	err = w.train(ctx, soft)
	if errors.Is(err, search.ErrOver) {
		err = nil
	}
	w.leave()
	reason := w.client.Reason()
	if soft.Err() != nil && parent.Err() == nil { // SIGUSR1
		reason = cmp.Or(reason, "its trials are given back")
		if errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	if err == nil {
		log.Note(fmt.Sprintf("%s done here, %s in all; %s",
			report.Count(log.Trials, "trial"), report.Count(log.Epochs, "epoch"), cmp.Or(reason, "the end")))
	}
	return err
}

// accessWorker is a worker of a coordinator.
type accessWorker struct {
	*machine
	o      workerOptions
	log    *progress.Log
	client *fleet.Client
}

// load checks that this worker can train a study, loads the study's pictures and returns
// their checksum.
func (w *accessWorker) load(ctx context.Context, s search.Study) (string, error) {
	if err := w.machine.train.Check(s); err != nil {
		return "", advised(fmt.Errorf("%s: %w", s.Name, err))
	}
	data, err := w.machine.train.Load(ctx, s)
	if err != nil {
		return "", advised(err)
	}
	w.log.Note(fmt.Sprintf("study %s on %s: %s", s.Name, report.DatasetLabel(s.Dataset), pictures(data)))
	return data.Sum, nil
}

// train trains until the coordinator has nothing more to train. The first study
// decides how many trials train at once.
func (w *accessWorker) train(ctx, soft context.Context) error {
	study, err := w.firstStudy(soft)
	if err != nil {
		return err
	}
	sum, err := w.load(ctx, study)
	if err != nil {
		return err
	}
	w.client.Loaded(study.Name, sum)
	workers, err := w.workers(ctx, w.o.workers, study)
	if err != nil {
		return err
	}
	w.log.Note(fmt.Sprintf("training on %s (%s), %s at once", w.attempt.Device, w.attempt.ISA,
		report.Count(workers, "trial")))
	runner := search.Runner{
		Trainer: advisedTrainer{w.machine.train}, Workers: workers, Notify: w.log.Event,
		Drain: soft.Done(), Deadline: w.o.deadline(ctx, w.log.Note),
	}
	return runner.Work(ctx, w.client)
}

// firstStudy waits for a coordinator that has a study.
func (w *accessWorker) firstStudy(ctx context.Context) (search.Study, error) {
	for {
		studies, err := w.client.Join(ctx)
		if err != nil || len(studies) > 0 {
			return append(studies, search.Study{})[0], err
		}
		select {
		case <-ctx.Done():
			return search.Study{}, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// leave delivers what is left and tells the coordinator that the worker ends,
// so that others get its trials at once. It does so after errors too.
func (w *accessWorker) leave() {
	limit := min(w.o.grace, 30*time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	slow := time.AfterFunc(time.Second, func() {
		w.log.Note(fmt.Sprintf("the coordinator does not answer; telling it for up to %v that this worker ends; "+
			"interrupt again to end at once", limit))
	})
	defer slow.Stop()
	left := w.client.Leave(ctx)
	if left == "" {
		return
	}
	then := "the coordinator takes it from there, if it sees the folder"
	if w.o.outbox != "" {
		then = "those epochs are trained again"
	}
	w.log.Note(fmt.Sprintf("what could not be delivered is in %s; %s", left, then))
}

// fleetProgram names this program such that two programs whose results may
// differ have different names.
func fleetProgram() string {
	b := build()
	if b.commit != "" && !strings.HasSuffix(b.commit, "-modified") {
		return b.version + " " + b.commit
	}
	program := b.version + " " + cmp.Or(b.commit, "of an unknown commit")
	// The commit does not tell, so the checksum of the file has to.
	path, err := os.Executable()
	if err != nil {
		return program
	}
	f, err := os.Open(path)
	if err != nil {
		return program
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return program
	}
	return fmt.Sprintf("%s (%x)", program, sum.Sum(nil)[:6])
}
