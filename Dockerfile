# One node of pg-bgworker. Configured by DATABASE_URL, or PG*, and BGW_* (see `bgw run --help`).
FROM node:22-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build && npm prune --omit=dev --ignore-scripts

FROM node:22-slim
WORKDIR /app
ENV NODE_ENV=production
COPY --from=build /app/package.json /app/LICENSE ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY --from=build /app/sql sql
COPY --from=build /app/migrations/committed migrations/committed
COPY --from=build /app/migrations/cron migrations/cron
USER node
ENTRYPOINT ["node", "/app/dist/cli.js"]
CMD ["run"]
