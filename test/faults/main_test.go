//go:build linux

package faults

import (
	"os"
	"testing"

	"github.com/dfs-go/dfs-go/internal/faultbed"
)

func TestMain(m *testing.M) { os.Exit(faultbed.Main(m)) }
