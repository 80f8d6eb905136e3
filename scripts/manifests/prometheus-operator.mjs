// Holds objects of the Prometheus operator against the validators of @kubernetes-models/prometheus-operator.
// They check types and required fields, and accept fields that they do not know.
//
//   prometheus-operator.mjs FOLDER   with a JSON list of objects on stdin
import { readFileSync } from 'node:fs';

const folder = process.argv[2];
const objects = JSON.parse(readFileSync(0, 'utf8'));
let failed = objects.length === 0;
for (const object of objects) {
  const kind = `ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1${object.kind}`;
  const { validate } = await import(`${folder}/node_modules/@kubernetes-models/prometheus-operator/_schemas/${kind}.js`);
  if (!validate(object)) {
    failed = true;
    for (const error of validate.errors) {
      console.error(`FAILED: ${object.kind}/${object.metadata.name}: ${error.instancePath}: ${error.keyword} ${JSON.stringify(error.params)}`);
    }
  }
}
if (!failed) console.log(`${objects.length} objects of the Prometheus operator`);
process.exit(failed ? 1 : 0);
