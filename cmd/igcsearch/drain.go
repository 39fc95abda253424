package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// listen listens for SIGUSR1, which asks a worker to give its trials back. Then
// soft ends, and hard ends when the grace is over. Both end with parent. stop
// ends the listening.
func listen(parent context.Context, grace time.Duration, note func(string)) (hard, soft context.Context, stop func()) {
	hard, cancel := context.WithCancel(parent)
	soft, drain := context.WithCancel(hard)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	var listening sync.WaitGroup
	listening.Go(func() {
		select {
		case <-hard.Done():
			return
		case <-signals:
		}
		note(fmt.Sprintf("SIGUSR1: giving trials back at the end of their epochs, at the latest in %v", grace))
		drain()
		select {
		case <-hard.Done():
		case <-time.After(grace):
			cancel()
		}
	})
	return hard, soft, func() {
		signal.Stop(signals)
		cancel()
		listening.Wait()
	}
}
