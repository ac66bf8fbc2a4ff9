package namenode

import (
	"testing"
	"time"
)

func TestSurveyRest(t *testing.T) {
	for _, test := range []struct{ took, rest time.Duration }{
		{0, surveyPause},
		{surveyPause / surveyShare, surveyPause},
		{time.Second, surveyShare * time.Second},
		{time.Hour, surveyAnyway}, // the process was stopped meanwhile
	} {
		if rest := surveyRest(test.took); rest != test.rest {
			t.Errorf("after a survey of %s: %s, want %s", test.took, rest, test.rest)
		}
	}
}
